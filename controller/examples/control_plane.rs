//! The control plane without any data plane: a node that accepts everything and serves nothing.
//!
//! ```text
//! cargo run -p pierhead-controller --example control_plane -- KUBECONFIG [IDENTITY]
//! ```
//!
//! Prints each configuration's version, its problems, and how long it took; leaves when it reads the end of its input.

#![allow(clippy::print_stdout, reason = "a command for developers")]

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Read;
use std::sync::Arc;

use jiff::Timestamp;
use pierhead_controller::nodes::Registry;
use pierhead_controller::run::{Options, Serving, run};
use pierhead_controller::{Counters, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(control())
}

async fn control() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kubeconfig = arguments.next().ok_or("name a kubeconfig")?.into();
    let identity = arguments.next().unwrap_or_else(|| "control-plane".into());
    let registry = Registry::default();
    let node = registry.join("nowhere", Timestamp::now());
    node.update(Timestamp::now(), |state| state.addresses = vec![[192, 0, 2, 1].into()]);
    let counters = Arc::new(Counters::default());
    let running = run(Options {
        kubeconfig: Some(kubeconfig),
        namespace: "pierhead-system".into(),
        identity,
        lease: "pierhead-controller".into(),
        address: None,
        settings: Box::new(|| Settings {
            address_pools: vec!["10.200.0.0/24".parse().unwrap_or_default()],
            ..Settings::new(Timestamp::now())
        }),
        serving: Serving::Local(registry),
        counters: Arc::clone(&counters),
    })
    .await?;
    let (ended, mut end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let mut published = running.published();
    let mut snapshots = running.snapshots();
    let mut said = BTreeSet::new();
    loop {
        let now = Arc::clone(&published.borrow_and_update());
        let version = snapshots.borrow_and_update().as_ref().map_or(0, |one| one.version);
        node.update(Timestamp::now(), |state| state.acked = version);
        println!(
            "{} snapshot {version} objects {} took {:?}",
            now.version, now.objects, now.took
        );
        for problem in &now.translation.problems {
            if said.insert(problem.to_string()) {
                println!("  {problem}");
            }
        }
        tokio::select! {
            changed = published.changed() => changed?,
            _ = &mut end => break,
        }
    }
    println!("{:#?}", counters.values());
    running.stop().await;
    Ok(())
}
