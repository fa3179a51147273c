//! Tests of an engine that several threads use.

mod concurrency;
mod stopping;
