//! What the codec costs per proxied request: parse, strip, add, write, both ways.
//!
//! `valgrind --tool=callgrind target/release/examples/exchange 20000`, once more with 10000, and divide the difference
//! of the totals by 10000.

use std::hint::black_box;

use pierhead_http1::encode::{self, Asked, Connection};
use pierhead_http1::{
    BodyDecoder, Headers, Known, Limits, RequestHead, RequestParser, ResponseHead, ResponseParser, Value, Version,
    strip_hop_by_hop,
};

const REQUEST: &[u8] = b"GET /api/v1/items/4711?fields=name,price HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\
    Cookie: session=8f2c1d9e7a6b5c4d; theme=dark\r\n\
    Connection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: backend\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Cache-Control: no-store\r\n\
    Content-Length: 45\r\n\
    Connection: keep-alive\r\n\r\n\
    {\"id\":4711,\"name\":\"lamp\",\"price\":\"12.50 EUR\"}";

fn main() {
    let rounds: u32 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000);
    let limits = Limits::default();
    let mut constant = Headers::new();
    constant.append(Known::XForwardedFor, Value::from_static("192.0.2.1"));
    constant.append(Known::XForwardedProto, Value::from_static("https"));
    constant.append(Known::XForwardedPort, Value::from_static("443"));
    let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
    let (mut requests, mut responses) = (RequestParser::new(), ResponseParser::new());
    let mut out = Vec::with_capacity(4096);
    for _ in 0..rounds {
        out.clear();
        let parsed = requests.parse(black_box(REQUEST), &mut request, &limits);
        let Ok(Some(start)) = parsed else { return };
        strip_hop_by_hop(&mut request.headers);
        black_box(request.headers.first(Known::Host));
        request.headers.append_all(&constant);
        let _framing = encode::request(&request, start.body, Connection::Default, &mut out);
        black_box(&out);

        out.clear();
        let parsed = responses.parse(black_box(RESPONSE), &mut response, request.method, &limits);
        let Ok(Some(start)) = parsed else { return };
        strip_hop_by_hop(&mut response.headers);
        let asked = Asked {
            method: request.method,
            version: Version::Http11,
        };
        let _framing = encode::response(&response, asked, start.body, Connection::Default, &mut out);
        let body = &RESPONSE[start.consumed..];
        let mut decoder = BodyDecoder::new(start.body, &limits);
        if let Ok(step) = decoder.decode(body) {
            out.extend_from_slice(&body[step.data]);
        }
        black_box(&out);
    }
}
