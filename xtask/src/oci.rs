//! Image archives: one that `ctr`, podman and skopeo read as an OCI layout and `docker load` by its `manifest.json`.
//!
//! Formats: OCI image layout 1.0 and image spec 1.1; Docker's is not specified, and what `docker save` writes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::tar::Tar;

/// What an image holds and how it starts.
pub(crate) struct Image<'a> {
    /// Every name under which it is known once it is loaded.
    pub(crate) names: &'a [&'a str],
    pub(crate) entrypoint: &'a [&'a str],
    /// `UID` or `UID:GID`.
    pub(crate) user: &'a str,
    /// The path in the image, the file it comes from, its mode.
    pub(crate) files: &'a [(&'a str, &'a Path, u32)],
}

/// A blob of the archive, named by its digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

/// Writes the archive of an image.
///
/// # Errors
/// A file cannot be read or written, or `sha256sum` is missing.
pub(crate) fn write(image: &Image<'_>, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let archive = archive(image)?;
    // Whoever reads it meanwhile reads the old one to its end.
    let new = to.with_extension("tar.new");
    fs::write(&new, archive).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot put {} in place", to.display()))
}

fn archive(image: &Image<'_>) -> Result<Vec<u8>> {
    let layer = Blob::new(layer(image)?)?;
    let config = Blob::json(&json!({
        "architecture": architecture()?,
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Env": ["PATH=/"],
            "User": image.user,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }))?;
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
    }))?;
    let manifests: Vec<Value> = image.names.iter().map(|name| named(&manifest, name)).collect();
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    let docker = json!([{
        "Config": config.path(),
        "RepoTags": image.names,
        "Layers": [layer.path()],
    }]);
    let mut tar = Tar::default();
    tar.folder("blobs", 0o755);
    tar.folder("blobs/sha256", 0o755);
    for blob in [&layer, &config, &manifest] {
        tar.file(&blob.path(), 0o644, &blob.bytes);
    }
    tar.file("index.json", 0o644, index.to_string().as_bytes());
    tar.file("manifest.json", 0o644, docker.to_string().as_bytes());
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    Ok(tar.finish())
}

/// The descriptor of a manifest under a name: containerd reads the first annotation, the others the second.
fn named(manifest: &Blob, name: &str) -> Value {
    let mut descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    descriptor["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    });
    descriptor
}

/// The one layer: the files, with the folders on their way, and a `/tmp`.
fn layer(image: &Image<'_>) -> Result<Vec<u8>> {
    let mut tar = Tar::default();
    let mut folders: Vec<&str> = Vec::new();
    for (path, ..) in image.files {
        let path = path.trim_start_matches('/');
        let on_the_way = path.match_indices('/').map(|(at, _)| &path[..at]);
        folders.extend(on_the_way.filter(|folder| !folder.is_empty()));
    }
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        tar.folder(folder, 0o755);
    }
    tar.folder("tmp", 0o1777);
    for &(path, from, mode) in image.files {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        tar.file(path.trim_start_matches('/'), mode, &content);
    }
    Ok(tar.finish())
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Result<Self> {
        let digest = format!("sha256:{}", sha256(&bytes)?);
        Ok(Self { digest, bytes })
    }

    fn json(value: &Value) -> Result<Self> {
        Self::new(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// The architecture in Go's words, which images use.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image for {other}"),
    }
}

/// The digest in hexadecimal, by the program every Debian has: this crate stays small.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start sha256sum")?;
    child
        .stdin
        .take()
        .context("sha256sum without an input")?
        .write_all(bytes)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().next() {
        Some(digest) if output.status.success() && digest.len() == 64 => Ok(digest.to_owned()),
        _ => bail!("sha256sum said `{}`", text.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(names: &[&str]) -> Vec<u8> {
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        archive(&Image {
            names,
            entrypoint: &["/usr/bin/it"],
            user: "65532",
            files: &[("/usr/bin/it", &this, 0o755)],
        })
        .unwrap()
    }

    #[test]
    fn the_digest_is_sha256() {
        assert_eq!(
            sha256(b"abc").unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_same_content_gives_the_same_archive() {
        assert_eq!(example(&["a/b:1"]), example(&["a/b:1"]));
    }

    #[test]
    fn every_name_is_in_both_indexes() {
        let archive = example(&["a/b:1", "a/b:2"]);
        let text = String::from_utf8_lossy(&archive);
        for name in ["a/b:1", "a/b:2"] {
            assert!(
                text.contains(&format!(r#""io.containerd.image.name":"{name}""#)),
                "{name}"
            );
        }
        assert!(text.contains(r#""RepoTags":["a/b:1","a/b:2"]"#));
    }
}
