//! Certificates and kubeconfigs: one authority, a certificate per role whose subject is the role's identity in RBAC.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::place::{API_SERVER, Host, Place, nodes};
use crate::sh;

/// A certificate: its file, its subject, its alternative names (may be none).
struct Role {
    name: String,
    subject: &'static str,
    names: String,
}

/// The roles that call the API server and so need a kubeconfig, beside the nodes.
const CLIENTS: &[&str] = &["admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"];

/// Makes everything anew.
///
/// # Errors
/// `openssl` fails, or the folder cannot be written.
pub(crate) fn make(place: &Place) -> Result<()> {
    fs::create_dir_all(place.pki("")).context("cannot make the folder of the certificates")?;
    openssl(
        place,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=pierhead-lab \
         -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt",
        &[],
    )?;
    openssl(place, "genrsa -out sa.key 2048", &[])?;
    for role in roles() {
        certificate(place, &role)?;
    }
    let clients = CLIENTS.iter().map(|&name| name.to_owned());
    for name in clients.chain(nodes().map(|node| node.name.to_owned())) {
        fs::write(place.kubeconfig(&name), kubeconfig(place, &name)?)
            .with_context(|| format!("cannot write the kubeconfig of {name}"))?;
    }
    Ok(())
}

fn roles() -> Vec<Role> {
    let role = |name: &str, subject, names: &str| Role {
        name: name.to_owned(),
        subject,
        names: names.to_owned(),
    };
    let mut roles = vec![
        role(
            "kube-apiserver",
            "/CN=kube-apiserver",
            "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
             DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:10.96.0.1,IP:10.250.0.1,IP:fd00:250::1",
        ),
        role("admin", "/O=system:masters/CN=admin", ""),
        role("kube-controller-manager", "/CN=system:kube-controller-manager", ""),
        role("kube-scheduler", "/CN=system:kube-scheduler", ""),
        role("kube-proxy", "/CN=system:kube-proxy", ""),
    ];
    roles.extend(nodes().map(node_role));
    roles
}

/// The kubelet's identity, and what it serves its own API with.
fn node_role(node: &Host) -> Role {
    Role {
        name: node.name.to_owned(),
        subject: "/O=system:nodes/CN=system:node:",
        names: format!("DNS:{},IP:{},IP:{}", node.name, node.v4, node.v6),
    }
}

fn certificate(place: &Place, role: &Role) -> Result<()> {
    let name = &role.name;
    let subject = if role.subject.ends_with(':') {
        format!("{}{name}", role.subject)
    } else {
        role.subject.to_owned()
    };
    let mut extensions =
        "keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n".to_owned();
    if !role.names.is_empty() {
        extensions.push_str(&format!("subjectAltName={}\n", role.names));
    }
    fs::write(place.pki(&format!("{name}.ext")), extensions)?;
    openssl(
        place,
        &format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr"),
        &["-subj", &subject],
    )?;
    openssl(
        place,
        &format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile {name}.ext -out {name}.crt"
        ),
        &[],
    )
}

fn openssl(place: &Place, words: &str, more: &[&str]) -> Result<()> {
    let mut command = Command::new("openssl");
    command
        .current_dir(place.pki(""))
        .args(words.split_whitespace())
        .args(more);
    sh::output(&mut command).map(|_said| ())
}

fn kubeconfig(place: &Place, role: &str) -> Result<String> {
    let file = |name: &str| base64_file(place, name);
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: {role}}}}}]\n\
         clusters:\n- name: lab\n  cluster:\n    server: {API_SERVER}\n    certificate-authority-data: {}\n\
         users:\n- name: {role}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        file("ca.crt")?,
        file(&format!("{role}.crt"))?,
        file(&format!("{role}.key"))?
    ))
}

/// A kubeconfig of one file can be carried into a namespace or a pod.
fn base64_file(place: &Place, name: &str) -> Result<String> {
    let encoded = sh::output(
        Command::new("openssl")
            .args(["base64", "-A", "-in"])
            .arg(place.pki(name)),
    )?;
    Ok(encoded.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_is_known_by_the_names_it_is_called() {
        let roles = roles();
        let server = roles.iter().find(|role| role.name == "kube-apiserver").unwrap();
        let address = API_SERVER.trim_start_matches("https://").trim_end_matches(":6443");
        for name in [
            &format!("IP:{address}"),
            "IP:10.96.0.1",
            "DNS:kubernetes.default.svc",
            "IP:127.0.0.1",
        ] {
            assert!(server.names.split(',').any(|it| it == name), "{name}");
        }
    }

    #[test]
    fn every_client_has_a_certificate() {
        let roles = roles();
        assert!(
            CLIENTS
                .iter()
                .all(|client| roles.iter().any(|role| role.name == *client))
        );
    }
}
