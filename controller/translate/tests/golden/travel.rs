//! What is translated reaches a node as it is.

use std::sync::Arc;

use pierhead_model::Snapshot;
use pierhead_protocol::{Assembly, Encoder, disk};

pub(crate) fn check(snapshot: &Snapshot) -> Result<(), String> {
    let snapshot = Arc::new(snapshot.clone());
    let mut assembly = Assembly::default();
    for resource in Encoder::default().encode(&snapshot).changed {
        assembly.put(resource);
    }
    let arrived = assembly.candidate();
    if !arrived.held_back.is_empty() {
        return Err(format!("a node would hold back {:?}", arrived.held_back));
    }
    if arrived.snapshot != snapshot {
        return Err("it arrives at a node as something else".to_owned());
    }
    match disk::decode(&disk::encode(&snapshot)) {
        Ok(read) if read.snapshot == snapshot => Ok(()),
        Ok(_) => Err("it is read from a disk as something else".to_owned()),
        Err(error) => Err(format!("it cannot be read from a disk: {error}")),
    }
}
