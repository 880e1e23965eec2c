//! Lists of prefixes: how they are read, and their schema.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::gateway_parameters::{Invalid, invalid};

/// The prefixes of a list that has 1 to `most`, each truncated.
///
/// # Errors
/// On what [`schema`] refuses too.
pub(crate) fn parse(field: &str, texts: &[String], most: usize) -> Result<Vec<IpNet>, Invalid> {
    if texts.is_empty() || texts.len() > most {
        return Err(invalid(field, format!("needs 1 to {most} prefixes")));
    }
    let parse = |(index, text): (usize, &String)| {
        let net = text.parse::<IpNet>().map_err(|_| {
            invalid(
                format!("{field}[{index}]"),
                format!("{text:?} is no prefix like 192.0.2.0/24 or 2001:db8::/64"),
            )
        });
        net.map(|net| net.trunc())
    };
    texts.iter().enumerate().map(parse).collect()
}

/// Of such a list.
pub(crate) fn schema(description: &str, most: usize) -> Value {
    json!({
        "type": "array",
        "description": description,
        "minItems": 1,
        "maxItems": most,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 49,
            "x-kubernetes-validations": [
                {"rule": "isCIDR(self)", "message": "must be a prefix like 192.0.2.0/24 or 2001:db8::/64"},
            ],
        },
    })
}
