//! A TCP server whose behaviour is a closure: for backends that stall, reset, or speak bad HTTP.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// Listens inside the namespace and gives each connection a thread. Ends with the process: a test process is short.
pub fn serve(
    namespace: &Netns,
    at: SocketAddr,
    conversation: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let listener = namespace
        .enter(|| TcpListener::bind(at))?
        .with_context(|| format!("bind {at}"))?;
    let conversation = Arc::new(conversation);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let conversation = Arc::clone(&conversation);
            // What goes wrong here shows at the client.
            thread::spawn(move || drop(conversation(stream)));
        }
    });
    Ok(())
}

/// Reads up to and with the empty line that ends a head. At most 1 MB.
pub fn read_head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || head.len() > 1 << 20 {
            bail!("no end of head in {:?}", String::from_utf8_lossy(&head));
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
