//! Remembers across restarts which address each Gateway has.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use pierhead_translate::ObjectName;
use pierhead_translate::address::Allocations;

/// What was stored last. Nothing, with a warning, when it cannot be read: a lost memory is no reason not to start.
pub(crate) fn load(path: &Path) -> Allocations {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Allocations::new(),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}; addresses are given anew", path.display());
            return Allocations::new();
        }
    };
    match serde_json::from_str::<BTreeMap<String, IpAddr>>(&text) {
        Ok(stored) => stored
            .into_iter()
            .filter_map(|(key, address)| {
                let (namespace, name) = key.split_once('/')?;
                Some((ObjectName::new(namespace, name), address))
            })
            .collect(),
        Err(error) => {
            tracing::warn!("{} is damaged ({error}); addresses are given anew", path.display());
            Allocations::new()
        }
    }
}

/// Written aside and renamed: a crash leaves the old or the new, never half.
pub(crate) fn store(path: &Path, allocations: &Allocations) -> io::Result<()> {
    let stored: BTreeMap<String, IpAddr> = allocations
        .iter()
        .map(|(gateway, address)| (gateway.to_string(), *address))
        .collect();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = path.with_extension("new");
    let mut file = fs::File::create(&aside)?;
    serde_json::to_writer_pretty(&mut file, &stored)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/addresses.json");
        assert_eq!(load(&path), Allocations::new());
        let allocations = Allocations::from([(ObjectName::new("a", "gw"), "10.0.0.1".parse().unwrap())]);
        store(&path, &allocations).unwrap();
        assert_eq!(load(&path), allocations);
        fs::write(&path, "{").unwrap();
        assert_eq!(load(&path), Allocations::new());
    }
}
