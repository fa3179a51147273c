//! Tests of an engine: opened, and used by several threads.

mod concurrency;
mod memory;
mod opening;
mod stopping;
