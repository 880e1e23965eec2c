//! Decoding of bodies in place: ranges of the caller's buffer come out, nothing is copied but trailers.

use std::ops::Range;

use crate::framing::BodyLength;
use crate::parse::FieldScan;
use crate::{Error, Headers, Limits, chars, encode};

/// What one call found in its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Body bytes, as a range of the input; may be empty.
    pub data: Range<usize>,
    /// Bytes of the input that are dealt with once `data` is used; the next input starts after them.
    pub consumed: usize,
    /// The body has ended; what follows in the input belongs to the next message.
    pub done: bool,
}

/// Decodes one body.
///
/// ```
/// use pierhead_http1::{BodyDecoder, BodyLength, Limits};
///
/// let mut decoder = BodyDecoder::new(BodyLength::Chunked, &Limits::default());
/// let wire = b"5\r\nhello\r\n6;note=1\r\n world\r\n0\r\n\r\nGET";
/// let (mut at, mut body) = (0, Vec::new());
/// loop {
///     let input = &wire[at..];
///     let step = decoder.decode(input)?;
///     body.extend_from_slice(&input[step.data]);
///     at += step.consumed;
///     if step.done {
///         break;
///     }
///     // When `at == wire.len()`: read more; at the end of the stream, ask `decoder.finish()`.
/// }
/// assert_eq!(body, b"hello world");
/// assert_eq!(&wire[at..], b"GET");
/// # Ok::<(), pierhead_http1::Error>(())
/// ```
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes left of the body or of the chunk.
    left: u64,
    /// Bytes of chunk extensions that may still come.
    extensions_left: u16,
    /// Digits of the current chunk size.
    digits: u8,
    limits: Limits,
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug)]
struct Trailers {
    raw: Vec<u8>,
    scan: FieldScan,
    headers: Headers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Exact,
    UntilClose,
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerLf,
    Trailers,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 §7.1.1) the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// After the size or a value, and blanks: only `;`.
    Between,
    /// After `;`: blanks, then a name.
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    QuotedPair,
    AfterQuoted,
}

/// All extensions of one body together, in bytes. They mean nothing to us and are dropped.
const EXTENSIONS_MAX: u16 = 4096;

impl BodyDecoder {
    /// A decoder at the start of a body. Trailers must keep `limits` too.
    pub const fn new(length: BodyLength, limits: &Limits) -> Self {
        let (state, left) = match length {
            BodyLength::Empty | BodyLength::Exact(0) => (State::Done, 0),
            BodyLength::Exact(length) => (State::Exact, length),
            BodyLength::Chunked => (State::Size, 0),
            BodyLength::UntilClose => (State::UntilClose, 0),
        };
        Self {
            state,
            left,
            extensions_left: EXTENSIONS_MAX,
            digits: 0,
            limits: *limits,
            trailers: None,
        }
    }

    /// Decodes up to the end of the first run of data and the framing after it.
    ///
    /// `input` starts at the first byte not consumed yet. A step that consumes nothing and is not done needs more
    /// input, which happens only for empty input.
    ///
    /// # Errors
    /// The message is broken: the connection cannot be used again.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut data = 0..0;
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Done => break,
                State::UntilClose => {
                    data = at..input.len();
                    at = input.len();
                }
                State::Exact | State::Data => {
                    if !data.is_empty() {
                        break;
                    }
                    let len = (input.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    data = at..at + len;
                    at += len;
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = if self.state == State::Exact {
                            State::Done
                        } else {
                            State::DataCr
                        };
                    }
                }
                State::Trailers => {
                    at += self.trailers(&input[at..])?;
                }
                _ => {
                    self.framing(byte)?;
                    // A first byte of trailers is looked at again.
                    at += usize::from(self.state != State::Trailers);
                }
            }
        }
        Ok(Step {
            data,
            consumed: at,
            done: self.state == State::Done,
        })
    }

    /// The input has ended.
    ///
    /// # Errors
    /// [`Error::BodyCutShort`] unless the body was complete or was to end with the connection.
    pub fn finish(&mut self) -> Result<(), Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Error::BodyCutShort),
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes still to come when that is known and they come without framing: what may bypass this decoder.
    pub fn unframed_left(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Exact => Some(self.left),
            State::UntilClose => Some(u64::MAX),
            _ => None,
        }
    }

    /// Counts `bytes` that bypassed the decoder, at most [`BodyDecoder::unframed_left`].
    pub fn bypass(&mut self, bytes: u64) {
        if self.state == State::Exact {
            self.left = self.left.saturating_sub(bytes);
            if self.left == 0 {
                self.state = State::Done;
            }
        }
    }

    /// The trailers, once the body is done, when there were any. Those that may not stand in trailers are gone.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        if self.state != State::Done {
            return None;
        }
        self.trailers
            .take()
            .map(|trailers| trailers.headers)
            .filter(|headers| !headers.is_empty())
    }

    /// One byte of chunk framing.
    fn framing(&mut self, byte: u8) -> Result<(), Error> {
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() => {
                // 16 digits fill 64 bits.
                if self.digits == 16 {
                    return Err(Error::ChunkSize);
                }
                self.digits += 1;
                self.left = self.left << 4 | u64::from(hex(byte));
                State::Size
            }
            (State::Size, _) if self.digits == 0 => return Err(Error::ChunkSize),
            (State::Size, b'\r') => State::SizeLf,
            (State::Size, b'\n') => return Err(Error::BareLf),
            (State::Size, b' ' | b'\t') => State::Extension(Extension::Between),
            (State::Size, b';') => State::Extension(Extension::BeforeName),
            (State::Size, _) => return Err(Error::ChunkSize),
            (State::Extension(extension), _) => self.extension(extension, byte)?,
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(Error::ChunkEnd),
            (State::TrailerStart, b'\r') => State::TrailerLf,
            (State::TrailerStart, _) => {
                self.trailers = Some(Box::new(Trailers {
                    raw: Vec::new(),
                    scan: FieldScan::default(),
                    headers: Headers::new(),
                }));
                State::Trailers
            }
            (State::TrailerLf, b'\n') => State::Done,
            (State::SizeLf | State::TrailerLf, _) => return Err(Error::BareCr),
            (State::Done | State::Exact | State::UntilClose | State::Data | State::Trailers, _) => self.state,
        };
        Ok(())
    }

    fn extension(&mut self, extension: Extension, byte: u8) -> Result<State, Error> {
        use Extension::{AfterName, AfterQuoted, BeforeName, BeforeValue, Between, Name, Quoted, QuotedPair, Value};
        self.extensions_left = self.extensions_left.checked_sub(1).ok_or(Error::ChunkExtension)?;
        let token = chars::is_token(byte);
        let next = match (extension, byte) {
            (Name | Value | AfterQuoted, b'\r') => return Ok(State::SizeLf),
            (_, b'\n') => return Err(Error::BareLf),
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, _) if chars::is_value(byte) => Quoted,
            (Between | BeforeName | AfterName | BeforeValue, b' ' | b'\t') => extension,
            (Name, b' ' | b'\t') => AfterName,
            (Value | AfterQuoted, b' ' | b'\t') => Between,
            (Between | Name | AfterName | Value | AfterQuoted, b';') => BeforeName,
            (Name | AfterName, b'=') => BeforeValue,
            (BeforeName | Name, _) if token => Name,
            (BeforeValue, b'"') => Quoted,
            (BeforeValue | Value, _) if token => Value,
            _ => return Err(Error::ChunkExtension),
        };
        Ok(State::Extension(next))
    }

    /// Takes trailers, which are rare and small, into a buffer of their own; returns how many bytes were taken.
    fn trailers(&mut self, input: &[u8]) -> Result<usize, Error> {
        let Some(trailers) = self.trailers.as_deref_mut() else {
            return Ok(0);
        };
        let before = trailers.raw.len();
        let room = self.limits.fields_bytes.saturating_sub(before);
        let taken = &input[..input.len().min(room)];
        trailers.raw.extend_from_slice(taken);
        match trailers.scan.run(&trailers.raw, &mut trailers.headers, &self.limits)? {
            None => Ok(taken.len()),
            Some(end) => {
                encode::strip_trailers(&mut trailers.headers);
                trailers.raw = Vec::new();
                self.state = State::Done;
                Ok(end - before)
            }
        }
    }
}

/// The value of a hexadecimal digit.
const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
