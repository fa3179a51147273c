//! anatomix-trainer
