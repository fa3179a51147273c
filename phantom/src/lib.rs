//! anatomix-phantom
