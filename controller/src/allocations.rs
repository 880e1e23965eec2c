//! Remembers across restarts which addresses each Gateway, or each IngressClass, has.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use pierhead_translate::ObjectName;
use pierhead_translate::address::Allocations;
use serde::Deserialize;

/// A value of the file; earlier versions gave one address each.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Several(Vec<IpAddr>),
    One(IpAddr),
}

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
    match serde_json::from_str::<BTreeMap<String, Stored>>(&text) {
        Ok(stored) => stored
            .into_iter()
            .map(|(key, stored)| {
                let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
                let addresses = match stored {
                    Stored::Several(addresses) => addresses,
                    Stored::One(address) => vec![address],
                };
                (ObjectName::new(namespace, name), addresses)
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
    let stored: BTreeMap<String, &Vec<IpAddr>> = allocations
        .iter()
        .map(|(gateway, addresses)| (gateway.to_string(), addresses))
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
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let allocations = Allocations::from([
            (ObjectName::new("a", "gw"), addresses(&["10.0.0.1", "2001:db8::1"])),
            (ObjectName::new("", "class"), addresses(&["10.0.0.2"])),
        ]);
        store(&path, &allocations).unwrap();
        assert_eq!(load(&path), allocations);
        fs::write(&path, r#"{"a/gw": "10.0.0.1"}"#).unwrap();
        let before = Allocations::from([(ObjectName::new("a", "gw"), addresses(&["10.0.0.1"]))]);
        assert_eq!(load(&path), before);
        fs::write(&path, "{").unwrap();
        assert_eq!(load(&path), Allocations::new());
    }
}
