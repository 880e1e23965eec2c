//! The examples of RFC 7541 Appendix C, and what must be refused.

use super::*;
use crate::Fields;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty());
    let pair = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(pair).collect()
}

fn texts(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields.all().map(|(name, value)| (text(name), text(value))).collect()
}

fn owned(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

struct Case<'a> {
    hex: &'a str,
    fields: &'a [(&'a str, &'a str)],
    table: &'a [(&'a str, &'a str)],
    size: usize,
}

fn decodes(max: usize, cases: &[Case<'_>]) {
    let mut decoder = Decoder::new(max);
    let mut fields = Fields::new();
    for case in cases {
        fields.clear();
        decoder.decode(&bytes(case.hex), usize::MAX, &mut fields).unwrap();
        assert_eq!(texts(&fields), owned(case.fields), "{}", case.hex);
        assert_eq!(decoder.table().all(), owned(case.table), "{}", case.hex);
        assert_eq!(decoder.table().size(), case.size, "{}", case.hex);
    }
}

#[test]
fn appendix_c_2_single_fields() {
    decodes(
        4096,
        &[Case {
            hex: "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            fields: &[("custom-key", "custom-header")],
            table: &[("custom-key", "custom-header")],
            size: 55,
        }],
    );
    let alone = [
        ("040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path")),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret")),
        ("82", (":method", "GET")),
    ];
    for (hex, field) in alone {
        decodes(
            4096,
            &[Case {
                hex,
                fields: &[field],
                table: &[],
                size: 0,
            }],
        );
    }
}

const FIRST: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
];
const SECOND: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

fn requests(hex: [&str; 3]) {
    let table = [
        ("custom-key", "custom-value"),
        ("cache-control", "no-cache"),
        (":authority", "www.example.com"),
    ];
    decodes(
        4096,
        &[
            Case {
                hex: hex[0],
                fields: &FIRST,
                table: &table[2..],
                size: 57,
            },
            Case {
                hex: hex[1],
                fields: &SECOND,
                table: &table[1..],
                size: 110,
            },
            Case {
                hex: hex[2],
                fields: &THIRD,
                table: &table,
                size: 164,
            },
        ],
    );
}

const HUFFMAN_REQUESTS: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];

#[test]
fn appendix_c_3_requests_without_huffman() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn appendix_c_4_requests_with_huffman() {
    requests(HUFFMAN_REQUESTS);
}

#[test]
fn our_encoder_says_appendix_c_4_byte_for_byte() {
    let mut encoder = Encoder::new();
    for (fields, hex) in [&FIRST[..], &SECOND, &THIRD].into_iter().zip(HUFFMAN_REQUESTS) {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.field(name.as_bytes(), value.as_bytes(), Policy::Index, &mut out);
        }
        assert_eq!(out, bytes(hex));
    }
    assert_eq!(encoder.table().size(), 164);
}

const DATE: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const LATER: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
const HOME: (&str, &str) = ("location", "https://www.example.com");

fn responses(hex: [&str; 3]) {
    let private = ("cache-control", "private");
    decodes(
        256,
        &[
            Case {
                hex: hex[0],
                fields: &[(":status", "302"), private, ("date", DATE), HOME],
                table: &[HOME, ("date", DATE), private, (":status", "302")],
                size: 222,
            },
            Case {
                hex: hex[1],
                fields: &[(":status", "307"), private, ("date", DATE), HOME],
                table: &[(":status", "307"), HOME, ("date", DATE), private],
                size: 222,
            },
            Case {
                hex: hex[2],
                fields: &[
                    (":status", "200"),
                    private,
                    ("date", LATER),
                    HOME,
                    ("content-encoding", "gzip"),
                    ("set-cookie", COOKIE),
                ],
                table: &[("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", LATER)],
                size: 215,
            },
        ],
    );
}

#[test]
fn appendix_c_5_responses_without_huffman() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e \
         1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d \
         4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 \
         7369 6f6e 3d31",
    ]);
}

#[test]
fn appendix_c_6_responses_with_huffman() {
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b \
         97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf \
         cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

fn fails(hex: &str, error: HpackError) {
    let mut fields = Fields::new();
    let got = Decoder::new(4096).decode(&bytes(hex), 4096, &mut fields);
    assert_eq!(got, Err(error), "{hex}");
}

#[test]
fn malformed_blocks_are_refused() {
    fails("80", HpackError::Index);
    fails("be", HpackError::Index);
    fails("ff 80 80 80 80 80 80", HpackError::Integer);
    fails("ff", HpackError::Integer);
    fails("7e 01 61", HpackError::Index);
    fails("40", HpackError::CutShort);
    fails("40 05 61", HpackError::CutShort);
    fails("40 01 61 05 61", HpackError::CutShort);
    fails("40 01 61", HpackError::CutShort);
    fails("40 81 00", HpackError::Huffman);
    fails("40 82 ff ff", HpackError::Huffman);
    // Beyond what was granted (4096), and after a field.
    fails("3f e2 1f", HpackError::Resize);
    fails("82 20", HpackError::Resize);
}

#[test]
fn changes_of_the_size_are_said_and_understood() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::new();
    let mut say = |encoder: &mut Encoder| {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.field(b"name", b"value", Policy::Index, &mut out);
        fields.clear();
        decoder.decode(&out, usize::MAX, &mut fields).unwrap();
        assert_eq!(texts(&fields), owned(&[("name", "value")]));
        (out, decoder.table().len())
    };
    assert_eq!(say(&mut encoder).1, 1);
    assert_eq!(say(&mut encoder).0.len(), 1);
    encoder.resize(0);
    encoder.resize(100);
    let (out, entries) = say(&mut encoder);
    assert_eq!((&out[..3], entries), (&[0x20, 0x3f, 69][..], 1));
    encoder.resize(0);
    assert_eq!(say(&mut encoder).1, 0);
    encoder.resize(1 << 30);
    let (out, _) = say(&mut encoder);
    assert_eq!(out[..3], [0x3f, 0xe1, 0x1f], "never more than the default");
}

#[test]
fn what_is_secret_or_comes_once_stays_out_of_the_table() {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    encoder.field(b"authorization", b"Basic x", Policy::Secret, &mut out);
    assert_eq!(out[..2], [0x1f, 23 - 15]);
    out.clear();
    encoder.field(b"x-request-id", b"0123", Policy::Once, &mut out);
    assert_eq!(out[0], 0);
    assert_eq!(encoder.table().len(), 0);
    // A secret is not even named by a field that says the same.
    out.clear();
    encoder.field(b"accept-encoding", b"gzip, deflate", Policy::Secret, &mut out);
    assert_eq!(out[0] & 0xf0, 0x10);
}

#[test]
fn beyond_the_limit_fields_are_dropped_but_the_tables_stay_equal() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::new();
    let mut out = Vec::new();
    encoder.field(b"big", &[b'x'; 300], Policy::Index, &mut out);
    // A reference costs one byte and says 335: a bomb.
    for _ in 0..1000 {
        encoder.field(b"big", &[b'x'; 300], Policy::Index, &mut out);
    }
    assert!(out.len() < 1400);
    decoder.decode(&out, 1000, &mut fields).unwrap();
    assert!(fields.is_over());
    assert_eq!((fields.all().count(), fields.size()), (2, 335 * 1001));
    out.clear();
    encoder.field(b"big", &[b'x'; 300], Policy::Index, &mut out);
    fields.clear();
    decoder.decode(&out, 1000, &mut fields).unwrap();
    assert!(!fields.is_over());
    assert_eq!(out.len(), 1);
}
