//! Prints the CustomResourceDefinitions as YAML, for `cargo xtask codegen`.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

fn main() -> Result<(), serde_saphyr::SerializeError> {
    for crd in pierhead_api::crds() {
        print!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
