//! `ci`: what CI runs. It is `test` without a tier: nothing is checked in CI that this machine cannot check.

use anyhow::{Result, bail};

use crate::test;

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.first() {
        bail!("`ci` takes no arguments, got `{unknown}`");
    }
    test::run(&[])
}
