//! The cluster for the tests: up, with the Pierhead of this very build on it.

use std::path::PathBuf;

use anyhow::Result;

use super::api::{self, Channel};
use super::place::Place;
use super::{ensure, install, is_up, remove};
use crate::codegen;
use crate::image::{self, Order};
use crate::sh::{self, say};

/// The cluster, set.
pub(crate) struct Stage {
    place: Place,
    /// Somebody had it up before, and keeps it.
    was_up: bool,
}

/// Sets it. The program is the one that the tests' own build made: these tests ask what it does, not how fast.
///
/// # Errors
/// The cluster does not come up, or Pierhead does not run on it; or what is installed is not what the sources say.
pub(crate) fn set() -> Result<Stage> {
    codegen::run(&["--check".to_owned()])?;
    let place = Place::here();
    let was_up = is_up(&place);
    ensure(&place, None)?;
    image::make(&Order {
        program: Some(sh::target_dir().join("debug/pierhead")),
        load: true,
        ..Order::default()
    })?;
    install::pierhead(&place, "auto", &[])?;
    Ok(Stage { place, was_up })
}

impl Stage {
    /// What tests that start programs of the cluster by themselves are told in their environment.
    ///
    /// # Errors
    /// The CRDs of the Gateway API are not to be had.
    pub(crate) fn told(&self) -> Result<Vec<(&'static str, PathBuf)>> {
        let programs = self.place.bin("kubectl");
        let programs = programs.parent().unwrap_or(&programs).to_owned();
        Ok(vec![
            ("PIERHEAD_CLUSTER_BIN", programs),
            ("PIERHEAD_GATEWAY_API_CRDS", api::crd_folder(Channel::Experimental)?),
        ])
    }

    /// Removes what was not there before; what failed stays, to be looked at.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub(crate) fn leave(self, good: bool) -> Result<()> {
        if self.was_up {
            return Ok(());
        }
        if good {
            return remove(&self.place);
        }
        say("cluster: stays up to be looked at; `cargo xtask cluster down` removes it");
        Ok(())
    }
}
