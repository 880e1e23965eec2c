//! TCP over a way: many short connections, or one long one. Client and server are threads of this process.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::net::HOST_A;

use super::way::{SERVER, Way};
use crate::traffic::bodies;

/// Bytes of a short exchange, each way.
const SHORT: usize = 64;
/// Bytes per call of the long one.
const LONG: usize = 256 * 1024;
/// Every so many pieces one is compared byte by byte.
const SAMPLE: usize = 32;

/// Connections made, one after the other.
pub(super) fn connections(way: &Way, time: Duration) -> Result<f64> {
    let server = serve(way, |stream| {
        let mut piece = [0; SHORT];
        stream.read_exact(&mut piece)?;
        stream.write_all(&piece)?;
        // The client closes first, and keeps the port.
        Ok(stream.read(&mut piece).map(drop)?)
    })?;
    let made = way.net.client.enter(|| {
        let until = Instant::now() + time;
        let mut made = 0;
        while Instant::now() < until {
            let mut stream = TcpStream::connect(way.address(0))?;
            stream.set_nodelay(true)?;
            stream.write_all(bodies::piece(made, SHORT))?;
            let mut piece = [0; SHORT];
            stream.read_exact(&mut piece)?;
            ensure!(piece == bodies::piece(made, SHORT), "a wrong answer");
            made += 1;
        }
        Ok(made)
    })?;
    server.end(way)?;
    Ok(made? as f64)
}

/// Gigabytes to the server.
pub(super) fn upload(way: &Way, time: Duration) -> Result<f64> {
    let server = serve(way, |stream| {
        let bytes = swallow(stream)?;
        Ok(stream.write_all(&bytes.to_be_bytes())?)
    })?;
    let sent = way.net.client.enter(|| {
        let mut stream = TcpStream::connect(way.address(0))?;
        let sent = pour(&mut stream, time)?;
        stream.shutdown(Shutdown::Write)?;
        let mut said = [0; 8];
        stream.read_exact(&mut said).context("the server's count")?;
        ensure!(u64::from_be_bytes(said) == sent, "bytes were lost");
        Ok(sent)
    })?;
    server.end(way)?;
    Ok(sent? as f64 / 1e9)
}

/// Gigabytes to the client.
pub(super) fn download(way: &Way, time: Duration) -> Result<f64> {
    let server = serve(way, move |stream| {
        // The client asks first, so that the way is open.
        let mut asked = [0; 1];
        if stream.read(&mut asked)? == 0 {
            return Ok(());
        }
        pour(stream, time).map(drop)
    })?;
    let got = way.net.client.enter(|| {
        let mut stream = TcpStream::connect(way.address(0))?;
        stream.write_all(b"!")?;
        swallow(&mut stream)
    })?;
    server.end(way)?;
    let got = got?;
    ensure!(got > 0, "nothing came");
    Ok(got as f64 / 1e9)
}

/// Sends the pattern for so long; how many bytes.
fn pour(stream: &mut TcpStream, time: Duration) -> Result<u64> {
    let until = Instant::now() + time;
    let mut sent = 0;
    while Instant::now() < until {
        stream.write_all(bodies::piece(sent, LONG))?;
        sent += LONG;
    }
    Ok(sent as u64)
}

/// Reads to the end; how many bytes of the pattern.
fn swallow(stream: &mut TcpStream) -> Result<u64> {
    let mut piece = vec![0; LONG];
    let (mut got, mut pieces) = (0, 0);
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(got as u64);
        }
        if pieces % SAMPLE == 0 {
            bodies::check(got, &piece[..count])?;
        }
        pieces += 1;
        got += count;
    }
}

struct Server {
    thread: JoinHandle<Result<()>>,
}

/// Serves one connection after the other in the host's namespace, until one closes without a word.
fn serve(way: &Way, mut with: impl FnMut(&mut TcpStream) -> Result<()> + Send + 'static) -> Result<Server> {
    let listener = way
        .net
        .a
        .enter(|| TcpListener::bind(HOST_A.v4_at(SERVER)))?
        .context("listen")?;
    let thread = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut first = [0; 1];
            // Whoever ends says so by closing at once.
            if stream.peek(&mut first).unwrap_or(0) == 0 {
                return Ok(());
            }
            with(&mut stream)?;
        }
    });
    Ok(Server { thread })
}

impl Server {
    fn end(self, way: &Way) -> Result<()> {
        let ended = way.net.client.enter(|| TcpStream::connect(HOST_A.v4_at(SERVER)))?;
        drop(ended.context("end the server")?);
        self.thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    }
}
