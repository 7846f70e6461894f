//! Which manager: what a proxy carries so that any process can find it.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::address::{Address, Key};
use serde::{Deserialize, Serialize};

/// A manager, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// Random; no two managers have the same.
    pub(super) id: [u8; 16],
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) key: Key,
}

#[cfg(test)]
impl Endpoint {
    /// For tests: of a manager that there is not.
    pub(super) fn of_nobody() -> Endpoint {
        Endpoint {
            id: [1; 16],
            name: "Manager".into(),
            address: Address::unique(),
            key: Key::random(),
        }
    }
}
