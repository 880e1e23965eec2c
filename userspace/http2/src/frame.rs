//! Frames (RFC 9113 §4, §6): their heads, and the small ones whole.

use crate::Code;

pub(crate) const HEAD: usize = 9;

/// What a client says first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Smallest SETTINGS_MAX_FRAME_SIZE, which holds until something else is said.
pub(crate) const DEFAULT_FRAME: u32 = 16 * 1024;
/// Largest.
pub(crate) const LARGEST_FRAME: u32 = (1 << 24) - 1;
/// Largest window, and the window until something else is said.
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
pub(crate) const LAST_STREAM: u32 = (1 << 31) - 1;

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// `None`: more is needed.
    pub(crate) fn read(input: &[u8]) -> Option<Self> {
        let head = input.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, head[0], head[1], head[2]]),
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & LAST_STREAM,
        })
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [s, t, u, v] = self.stream.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags, s, t, u, v]);
    }
}

/// Puts the length of the payload into the head at `at`.
pub(crate) fn patch_length(out: &mut [u8], at: usize, length: usize) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    out[at..at + 3].copy_from_slice(&[a, b, c]);
}

pub(crate) fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk::<4>()?))
}

fn small(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let head = Head {
        length: payload.len() as u32,
        kind,
        flags,
        stream,
    };
    head.write(out);
    out.extend_from_slice(payload);
}

pub(crate) fn settings(all: &[(u16, u32)], out: &mut Vec<u8>) {
    let head = Head {
        length: all.len() as u32 * 6,
        kind: kind::SETTINGS,
        flags: 0,
        stream: 0,
    };
    head.write(out);
    for (name, value) in all {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn settings_ack(out: &mut Vec<u8>) {
    small(kind::SETTINGS, flag::ACK, 0, &[], out);
}

pub(crate) fn ping(ack: bool, payload: &[u8; 8], out: &mut Vec<u8>) {
    small(kind::PING, if ack { flag::ACK } else { 0 }, 0, payload, out);
}

pub(crate) fn window_update(stream: u32, count: u32, out: &mut Vec<u8>) {
    small(kind::WINDOW_UPDATE, 0, stream, &count.to_be_bytes(), out);
}

pub(crate) fn reset(stream: u32, code: Code, out: &mut Vec<u8>) {
    small(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes(), out);
}

pub(crate) fn goaway(last: u32, code: Code, out: &mut Vec<u8>) {
    let [a, b, c, d] = last.to_be_bytes();
    let [e, f, g, h] = code.0.to_be_bytes();
    small(kind::GOAWAY, 0, 0, &[a, b, c, d, e, f, g, h], out);
}
