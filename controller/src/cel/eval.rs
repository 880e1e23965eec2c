//! The tree of a rule to yes or no.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::parse::{Expr, Function, Macro, Op, Pattern};

/// Most steps one evaluation may take. The dearest rule of the schemas on its largest list takes some 200,000.
const MAX_STEPS: u32 = 5_000_000;

/// Why a rule has no answer. Counts as broken, like at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("a field it needs is missing")]
    Missing,
    #[error("a value has another type than it needs")]
    Type,
    #[error("it takes too long on a value of this size")]
    Cost,
}

#[derive(Clone, Debug)]
enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    List(&'a [Value]),
    Own(Vec<Self>),
    Map(&'a Map<String, Value>),
    /// Milliseconds: Gateway API durations have no smaller unit (GEP-2257).
    Duration(u64),
}

/// Does the rule hold for `value`?
pub(crate) fn holds(rule: &Expr, value: &Value) -> Result<bool, Failure> {
    let mut eval = Eval {
        names: vec![("self", cell(value))],
        steps: 0,
    };
    match eval.eval(rule)? {
        Cell::Bool(answer) => Ok(answer),
        _ => Err(Failure::Type),
    }
}

fn cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(value) => value
            .as_i64()
            .map(Cell::Int)
            .or_else(|| value.as_f64().map(Cell::Float))
            .unwrap_or(Cell::Null),
        Value::String(value) => Cell::Str(value),
        Value::Array(value) => Cell::List(value),
        Value::Object(value) => Cell::Map(value),
    }
}

struct Eval<'a> {
    names: Vec<(&'a str, Cell<'a>)>,
    steps: u32,
}

impl<'a> Eval<'a> {
    fn eval(&mut self, expr: &'a Expr) -> Result<Cell<'a>, Failure> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Failure::Cost);
        }
        match expr {
            Expr::Bool(value) => Ok(Cell::Bool(*value)),
            Expr::Int(value) => Ok(Cell::Int(*value)),
            Expr::Str(value) => Ok(Cell::Str(value)),
            Expr::List(list) => Ok(Cell::Own(
                list.iter().map(|item| self.eval(item)).collect::<Result<_, _>>()?,
            )),
            Expr::Name(name) => {
                let found = self.names.iter().rev().find(|(own, _)| own == name);
                found.map(|(_, value)| value.clone()).ok_or(Failure::Missing)
            }
            Expr::Field(of, field) => match self.eval(of)? {
                Cell::Map(map) => map.get(field).map(cell).ok_or(Failure::Missing),
                _ => Err(Failure::Type),
            },
            Expr::Has(of, field) => match self.eval(of)? {
                Cell::Map(map) => Ok(Cell::Bool(map.contains_key(field))),
                _ => Err(Failure::Type),
            },
            Expr::Index(of, index) => {
                let of = self.eval(of)?;
                let index = self.eval(index)?;
                match (of, index) {
                    (Cell::List(list), Cell::Int(at)) => usize::try_from(at)
                        .ok()
                        .and_then(|at| list.get(at))
                        .map(cell)
                        .ok_or(Failure::Missing),
                    (Cell::Own(mut list), Cell::Int(at)) => match usize::try_from(at) {
                        Ok(at) if at < list.len() => Ok(list.swap_remove(at)),
                        _ => Err(Failure::Missing),
                    },
                    (Cell::Map(map), Cell::Str(key)) => map.get(key).map(cell).ok_or(Failure::Missing),
                    _ => Err(Failure::Type),
                }
            }
            Expr::Not(inner) => Ok(Cell::Bool(!self.truth(inner)?)),
            Expr::If(condition, yes, no) => {
                if self.truth(condition)? {
                    self.eval(yes)
                } else {
                    self.eval(no)
                }
            }
            Expr::Binary(op, left, right) => self.binary(*op, left, right),
            Expr::Each(each, of, name, body) => self.each(*each, of, name, body),
            Expr::Matches(of, pattern) => match self.eval(of)? {
                Cell::Str(text) => is_match(pattern, text).map(Cell::Bool),
                _ => Err(Failure::Type),
            },
            Expr::Call(function, arguments) => self.call(*function, arguments),
        }
    }

    fn truth(&mut self, expr: &'a Expr) -> Result<bool, Failure> {
        match self.eval(expr)? {
            Cell::Bool(value) => Ok(value),
            _ => Err(Failure::Type),
        }
    }

    fn binary(&mut self, op: Op, left: &'a Expr, right: &'a Expr) -> Result<Cell<'a>, Failure> {
        // `&&` and `||` take whichever side decides, even where the other has no answer (CEL "logical operators").
        if let Op::And | Op::Or = op {
            let decisive = op == Op::Or;
            let left = self.truth(left);
            if left == Ok(decisive) {
                return Ok(Cell::Bool(decisive));
            }
            let right = self.truth(right);
            if right == Ok(decisive) {
                return Ok(Cell::Bool(decisive));
            }
            left?;
            return right.map(Cell::Bool);
        }
        let left = self.eval(left)?;
        let right = self.eval(right)?;
        match op {
            Op::Eq => Ok(Cell::Bool(equal(&left, &right))),
            Op::Ne => Ok(Cell::Bool(!equal(&left, &right))),
            Op::In => match right {
                Cell::List(list) => Ok(Cell::Bool(list.iter().any(|item| equal(&left, &cell(item))))),
                Cell::Own(list) => Ok(Cell::Bool(list.iter().any(|item| equal(&left, item)))),
                Cell::Map(map) => match left {
                    Cell::Str(key) => Ok(Cell::Bool(map.contains_key(key))),
                    _ => Err(Failure::Type),
                },
                _ => Err(Failure::Type),
            },
            Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                let order = match (&left, &right) {
                    (Cell::Int(a), Cell::Int(b)) => a.cmp(b),
                    (Cell::Duration(a), Cell::Duration(b)) => a.cmp(b),
                    (Cell::Str(a), Cell::Str(b)) => a.cmp(b),
                    _ => return Err(Failure::Type),
                };
                Ok(Cell::Bool(match op {
                    Op::Lt => order.is_lt(),
                    Op::Le => order.is_le(),
                    Op::Gt => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            Op::Add | Op::Sub => match (&left, &right) {
                (Cell::Int(a), Cell::Int(b)) => {
                    let sum = if op == Op::Add {
                        a.checked_add(*b)
                    } else {
                        a.checked_sub(*b)
                    };
                    sum.map(Cell::Int).ok_or(Failure::Type)
                }
                _ => Err(Failure::Type),
            },
            Op::And | Op::Or => Err(Failure::Type),
        }
    }

    fn each(&mut self, each: Macro, of: &'a Expr, name: &'a str, body: &'a Expr) -> Result<Cell<'a>, Failure> {
        let items: Vec<Cell<'a>> = match self.eval(of)? {
            Cell::List(list) => list.iter().map(cell).collect(),
            Cell::Own(list) => list,
            Cell::Map(map) => map.keys().map(|key| Cell::Str(key)).collect(),
            _ => return Err(Failure::Type),
        };
        let mut failure = None;
        let mut chosen = Vec::new();
        for item in items {
            self.names.push((name, item.clone()));
            let answer = self.truth(body);
            self.names.pop();
            match (each, answer) {
                // One decisive item outweighs another without an answer, as in `&&` and `||`.
                (Macro::All, Ok(false)) => return Ok(Cell::Bool(false)),
                (Macro::Exists, Ok(true)) => return Ok(Cell::Bool(true)),
                (Macro::All | Macro::Exists, Err(Failure::Cost)) => return Err(Failure::Cost),
                (Macro::All | Macro::Exists, Err(error)) => failure = Some(error),
                (Macro::ExistsOne | Macro::Filter, Err(error)) => return Err(error),
                (Macro::ExistsOne | Macro::Filter, Ok(true)) => chosen.push(item),
                (_, Ok(_)) => {}
            }
        }
        match (each, failure) {
            (_, Some(failure)) => Err(failure),
            (Macro::All, None) => Ok(Cell::Bool(true)),
            (Macro::Exists, None) => Ok(Cell::Bool(false)),
            (Macro::ExistsOne, None) => Ok(Cell::Bool(chosen.len() == 1)),
            (Macro::Filter, None) => Ok(Cell::Own(chosen)),
        }
    }

    fn call(&mut self, function: Function, arguments: &'a [Expr]) -> Result<Cell<'a>, Failure> {
        let mut values = arguments
            .iter()
            .map(|argument| self.eval(argument))
            .collect::<Result<Vec<_>, _>>()?;
        let second = if values.len() > 1 { values.pop() } else { None };
        let first = values.pop().ok_or(Failure::Type)?;
        match (function, first, second) {
            (Function::Size, Cell::Str(text), None) => Ok(Cell::Int(count(text.chars().count()))),
            (Function::Size, Cell::List(list), None) => Ok(Cell::Int(count(list.len()))),
            (Function::Size, Cell::Own(list), None) => Ok(Cell::Int(count(list.len()))),
            (Function::Size, Cell::Map(map), None) => Ok(Cell::Int(count(map.len()))),
            (Function::Contains, Cell::Str(text), Some(Cell::Str(part))) => Ok(Cell::Bool(text.contains(part))),
            (Function::StartsWith, Cell::Str(text), Some(Cell::Str(part))) => Ok(Cell::Bool(text.starts_with(part))),
            (Function::EndsWith, Cell::Str(text), Some(Cell::Str(part))) => Ok(Cell::Bool(text.ends_with(part))),
            (Function::Substring, Cell::Str(text), Some(Cell::Int(start))) => {
                let start = usize::try_from(start).map_err(|_| Failure::Type)?;
                let at = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(start);
                at.map(|at| Cell::Str(&text[at..])).ok_or(Failure::Missing)
            }
            (Function::Split, Cell::Str(text), Some(Cell::Str(by))) => {
                Ok(Cell::Own(text.split(by).map(Cell::Str).collect()))
            }
            (Function::Duration, Cell::Str(text), None) => duration(text).map(Cell::Duration).ok_or(Failure::Type),
            (Function::IsIp, Cell::Str(text), None) => Ok(Cell::Bool(is_ip(text))),
            (Function::IsCidr, Cell::Str(text), None) => Ok(Cell::Bool(is_cidr(text))),
            (Function::NotDns1123Subdomain, Cell::Str(text), None) => {
                Ok(Cell::Bool(!crate::schema::is_dns1123_subdomain(text)))
            }
            _ => Err(Failure::Type),
        }
    }
}

fn is_match(pattern: &Pattern, text: &str) -> Result<bool, Failure> {
    pattern
        .regex()
        .map(|regex| regex.is_match(text.as_bytes()))
        .ok_or(Failure::Type)
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn equal(a: &Cell<'_>, b: &Cell<'_>) -> bool {
    match (a, b) {
        (Cell::Null, Cell::Null) => true,
        (Cell::Bool(a), Cell::Bool(b)) => a == b,
        (Cell::Int(a), Cell::Int(b)) => a == b,
        (Cell::Float(a), Cell::Float(b)) => a == b,
        (Cell::Str(a), Cell::Str(b)) => a == b,
        (Cell::List(a), Cell::List(b)) => a == b,
        (Cell::Map(a), Cell::Map(b)) => a == b,
        (Cell::Duration(a), Cell::Duration(b)) => a == b,
        _ => false,
    }
}

/// Kubernetes' `isIP`: no zone, no IPv4 in IPv6.
fn is_ip(text: &str) -> bool {
    match text.parse() {
        Ok(IpAddr::V4(_)) => true,
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        Err(_) => false,
    }
}

/// Kubernetes' `isCIDR`: bits behind the prefix may be set; no zone, no IPv4 in IPv6, no leading zeroes.
fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let most = if address.contains(':') { 128 } else { 32 };
    let plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    is_ip(address) && plain && length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// Milliseconds of a Go duration in the units GEP-2257 allows (`h`, `m`, `s`, `ms`).
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let value: u64 = rest[..digits].parse().ok()?;
        let unit_length = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len() - digits);
        let milliseconds = match &rest[digits..digits + unit_length] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        total = total.checked_add(value.checked_mul(milliseconds)?)?;
        rest = &rest[digits + unit_length..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(rule: &str, value: Value, want: Result<bool, Failure>) {
        assert_eq!(holds(&parse(rule).unwrap(), &value), want, "{rule} on {value}");
    }

    #[test]
    fn operators_bind_as_in_the_specification() {
        check("1 + 2 - 3 == 0 && !false || false", json!(0), Ok(true));
        check("false && true || true", json!(0), Ok(true));
        check("true || true && false", json!(0), Ok(true));
        check("(true || true) && false", json!(0), Ok(false));
        check("5 - 2 - 1 == 2", json!(0), Ok(true));
        check("true ? false : true", json!(0), Ok(false));
        check("false ? true : true ? false : true", json!(0), Ok(false));
        check("'b' in ['a', 'b']", json!(0), Ok(true));
        check("!('*' in self && self.size() > 1)", json!(["*", "a"]), Ok(false));
    }

    #[test]
    fn the_side_that_decides_wins_over_one_without_an_answer() {
        check("self.a == 1 || true", json!({}), Ok(true));
        check("self.a == 1 && false", json!({}), Ok(false));
        check("self.a == 1 || false", json!({}), Err(Failure::Missing));
        check("self.all(x, x.a == 1)", json!([{}, {"a": 2}]), Ok(false));
        check("self.all(x, x.a == 1)", json!([{}, {"a": 1}]), Err(Failure::Missing));
        check("self.exists(x, x.a == 1)", json!([{}, {"a": 1}]), Ok(true));
    }

    #[test]
    fn macros_see_outer_names() {
        let unique = "self.all(a, self.exists_one(b, a.port == b.port))";
        check(unique, json!([{"port": 1}, {"port": 2}]), Ok(true));
        check(unique, json!([{"port": 1}, {"port": 1}]), Ok(false));
        check(
            "self.filter(f, f.type == 'CORS').size() <= 1",
            json!([{"type": "CORS"}, {"type": "CORS"}]),
            Ok(false),
        );
        check(
            "self.all(key, key.split('/')[0].size() < 3)",
            json!({"ab/c": 1}),
            Ok(true),
        );
        check("has(self.__namespace__)", json!({"namespace": "x"}), Ok(true));
    }

    #[test]
    fn strings_durations_and_addresses() {
        check(r#"self.matches(r"""^[a-z]\d$""")"#, json!("a1"), Ok(true));
        check(r"self.matches('^a\\.b$')", json!("axb"), Ok(false));
        check(
            "self.startsWith('*.') && self.substring(2) == 'b'",
            json!("*.b"),
            Ok(true),
        );
        check("duration(self) > duration('1m')", json!("1m1ms"), Ok(true));
        check("duration(self) == duration('1h30m')", json!("90m"), Ok(true));
        check("isIP(self)", json!("::1"), Ok(true));
        check("isIP(self)", json!("::ffff:1.2.3.4"), Ok(false));
        for good in ["10.0.0.0/8", "10.1.2.3/8", "::/0", "2001:db8::/64", "192.0.2.1/32"] {
            check("isCIDR(self)", json!(good), Ok(true));
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "/8",
            "10.0.0.0/",
        ] {
            check("isCIDR(self)", json!(bad), Ok(false));
        }
        check(
            "!format.dns1123Subdomain().validate(self).hasValue()",
            json!("a.b"),
            Ok(true),
        );
        check(
            "!format.dns1123Subdomain().validate(self).hasValue()",
            json!("A"),
            Ok(false),
        );
    }

    #[test]
    fn what_is_not_known_does_not_parse() {
        for rule in [
            "self.lowerAscii()",
            "cel.bind(x, 1, x)",
            "self.matches(self)",
            "self == ",
            "'x",
            "has(self)",
            "1 2",
        ] {
            assert!(parse(rule).is_err(), "{rule}");
        }
    }

    #[test]
    fn cost_is_capped() {
        let list = json!(vec![0; 300]);
        check(
            "self.all(a, self.all(b, self.all(c, a == b)))",
            list,
            Err(Failure::Cost),
        );
    }
}
