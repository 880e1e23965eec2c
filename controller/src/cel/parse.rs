//! Text of a rule to its tree.

use std::sync::OnceLock;

use regex::bytes::Regex;

/// Why a rule cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("unexpected {0:?}")]
    Unexpected(String),
    #[error("the rule ends too early")]
    End,
    #[error("function {0:?} with {1} arguments is not known")]
    UnknownFunction(String, usize),
    #[error("string without an end")]
    OpenString,
    #[error("{0:?} is not a number")]
    Number(String),
    #[error("nested too deeply")]
    Depth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    Add,
    Sub,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Substring,
    Split,
    Duration,
    IsIp,
    IsCidr,
    /// `format.dns1123Subdomain().validate(x).hasValue()`: is `x` *not* a subdomain?
    NotDns1123Subdomain,
}

/// A pattern is compiled when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(text: String) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    /// Go's RE2 without Unicode classes, as the API server's. `None`: not a valid pattern.
    pub(crate) fn regex(&self) -> Option<&Regex> {
        self.compiled
            .get_or_init(|| {
                regex::bytes::RegexBuilder::new(&self.text)
                    .unicode(false)
                    .size_limit(1 << 20)
                    .build()
                    .ok()
            })
            .as_ref()
    }
}

#[derive(Debug)]
pub(crate) enum Expr {
    Bool(bool),
    Int(i64),
    Str(String),
    List(Vec<Self>),
    Name(String),
    Field(Box<Self>, String),
    Has(Box<Self>, String),
    Index(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Binary(Op, Box<Self>, Box<Self>),
    If(Box<Self>, Box<Self>, Box<Self>),
    Each(Macro, Box<Self>, String, Box<Self>),
    Matches(Box<Self>, Pattern),
    Call(Function, Vec<Self>),
}

impl Expr {
    /// Does the rule compare with the object as it was? Such rules do not apply to an object that is created.
    pub(crate) fn names(&self, name: &str) -> bool {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Str(_) => false,
            Self::Name(own) => own == name,
            Self::List(list) | Self::Call(_, list) => list.iter().any(|expr| expr.names(name)),
            Self::Field(inner, _) | Self::Has(inner, _) | Self::Not(inner) | Self::Matches(inner, _) => {
                inner.names(name)
            }
            Self::Index(a, b) | Self::Binary(_, a, b) | Self::Each(_, a, _, b) => a.names(name) || b.names(name),
            Self::If(a, b, c) => a.names(name) || b.names(name) || c.names(name),
        }
    }
}

#[cfg(test)]
impl Expr {
    /// Every pattern in the rule.
    pub(crate) fn patterns(&self) -> Vec<&Pattern> {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Str(_) | Self::Name(_) => Vec::new(),
            Self::List(list) | Self::Call(_, list) => list.iter().flat_map(Self::patterns).collect(),
            Self::Field(inner, _) | Self::Has(inner, _) | Self::Not(inner) => inner.patterns(),
            Self::Matches(inner, pattern) => inner.patterns().into_iter().chain([pattern]).collect(),
            Self::Index(a, b) | Self::Binary(_, a, b) | Self::Each(_, a, _, b) => {
                a.patterns().into_iter().chain(b.patterns()).collect()
            }
            Self::If(a, b, c) => [a, b, c].into_iter().flat_map(|expr| expr.patterns()).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Str(String),
    Int(i64),
    Sign(&'static str),
}

const SIGNS: [&str; 21] = [
    "&&", "||", "==", "!=", "<=", ">=", "(", ")", "[", "]", ",", ".", "?", ":", "!", "<", ">", "+", "-", "{", "}",
];

fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut rest = text.trim_start();
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if let Some((token, length)) = string(rest)? {
            (token, length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        } else if first.is_ascii_digit() {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let digits = &rest[..length];
            (
                Token::Int(digits.parse().map_err(|_| Error::Number(digits.to_owned()))?),
                length,
            )
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(Error::Unexpected(first.to_string()));
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn string(rest: &str) -> Result<Option<(Token, usize)>, Error> {
    let raw = rest.starts_with("r'") || rest.starts_with("r\"");
    let start = usize::from(raw);
    let body = &rest[start..];
    let quote = if body.starts_with("\"\"\"") {
        "\"\"\""
    } else if body.starts_with("'''") {
        "'''"
    } else if body.starts_with('"') {
        "\""
    } else if body.starts_with('\'') {
        "'"
    } else {
        return Ok(None);
    };
    let mut value = String::new();
    let mut chars = body[quote.len()..].char_indices();
    while let Some((at, c)) = chars.next() {
        if body[quote.len() + at..].starts_with(quote) {
            return Ok(Some((Token::Str(value), start + quote.len() + at + quote.len())));
        }
        if c == '\\' && !raw {
            match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('\\' | '"' | '\''))) => value.push(c),
                _ => return Err(Error::Unexpected("\\".into())),
            }
        } else {
            value.push(c);
        }
    }
    Err(Error::OpenString)
}

/// Parses a rule whole, or says why it cannot be used.
pub(crate) fn parse(text: &str) -> Result<Expr, Error> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
    };
    let expr = parser.ternary()?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(Error::Unexpected(format!("{token:?}"))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self) -> Result<Token, Error> {
        let token = self.tokens.get(self.at).cloned().ok_or(Error::End)?;
        self.at += 1;
        Ok(token)
    }

    fn eat(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Error> {
        match self.take()? {
            Token::Sign(found) if found == sign => Ok(()),
            other => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    fn ternary(&mut self) -> Result<Expr, Error> {
        self.depth += 1;
        if self.depth > 64 {
            return Err(Error::Depth);
        }
        let condition = self.binary(0)?;
        let expr = if self.eat("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.ternary()?;
            Expr::If(Box::new(condition), Box::new(yes), Box::new(no))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn operator(&self) -> Option<(u8, Op)> {
        Some(match self.peek()? {
            Token::Sign("||") => (1, Op::Or),
            Token::Sign("&&") => (2, Op::And),
            Token::Sign("==") => (3, Op::Eq),
            Token::Sign("!=") => (3, Op::Ne),
            Token::Sign("<") => (3, Op::Lt),
            Token::Sign("<=") => (3, Op::Le),
            Token::Sign(">") => (3, Op::Gt),
            Token::Sign(">=") => (3, Op::Ge),
            Token::Word(word) if word == "in" => (3, Op::In),
            Token::Sign("+") => (4, Op::Add),
            Token::Sign("-") => (4, Op::Sub),
            _ => return None,
        })
    }

    fn binary(&mut self, above: u8) -> Result<Expr, Error> {
        let mut left = self.unary()?;
        while let Some((level, op)) = self.operator().filter(|(level, _)| *level > above) {
            self.at += 1;
            let right = self.binary(level)?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Error> {
        if self.eat("!") {
            return Ok(Expr::Not(Box::new(self.unary()?)));
        }
        let mut expr = self.primary()?;
        loop {
            if self.eat("[") {
                let index = self.ternary()?;
                self.expect("]")?;
                expr = Expr::Index(Box::new(expr), Box::new(index));
            } else if self.eat(".") {
                let Token::Word(name) = self.take()? else {
                    return Err(Error::Unexpected(".".into()));
                };
                expr = if self.eat("(") {
                    self.method(expr, &name)?
                } else {
                    Expr::Field(Box::new(expr), unescape(&name))
                };
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        match self.take()? {
            Token::Int(value) => Ok(Expr::Int(value)),
            Token::Str(value) => Ok(Expr::Str(value)),
            Token::Sign("(") => {
                let expr = self.ternary()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Sign("[") => Ok(Expr::List(self.list("]")?)),
            Token::Word(word) => match &*word {
                "true" => Ok(Expr::Bool(true)),
                "false" => Ok(Expr::Bool(false)),
                "format" => self.format(),
                _ if self.eat("(") => self.function(&word),
                _ => Ok(Expr::Name(word)),
            },
            other @ Token::Sign(_) => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    /// Values up to `end`, which is eaten.
    fn list(&mut self, end: &'static str) -> Result<Vec<Expr>, Error> {
        let mut list = Vec::new();
        while !self.eat(end) {
            if !list.is_empty() {
                self.expect(",")?;
            }
            list.push(self.ternary()?);
        }
        Ok(list)
    }

    fn function(&mut self, name: &str) -> Result<Expr, Error> {
        let mut arguments = self.list(")")?;
        match (name, arguments.len()) {
            ("has", 1) => match arguments.pop() {
                Some(Expr::Field(of, field)) => Ok(Expr::Has(of, field)),
                _ => Err(Error::UnknownFunction("has of something else than a field".into(), 1)),
            },
            ("size", 1) => Ok(Expr::Call(Function::Size, arguments)),
            ("duration", 1) => Ok(Expr::Call(Function::Duration, arguments)),
            ("isIP", 1) => Ok(Expr::Call(Function::IsIp, arguments)),
            ("isCIDR", 1) => Ok(Expr::Call(Function::IsCidr, arguments)),
            (_, count) => Err(Error::UnknownFunction(name.to_owned(), count)),
        }
    }

    fn method(&mut self, of: Expr, name: &str) -> Result<Expr, Error> {
        let each = match name {
            "all" => Some(Macro::All),
            "exists" => Some(Macro::Exists),
            "exists_one" => Some(Macro::ExistsOne),
            "filter" => Some(Macro::Filter),
            _ => None,
        };
        if let Some(each) = each {
            let Token::Word(variable) = self.take()? else {
                return Err(Error::Unexpected(name.to_owned()));
            };
            self.expect(",")?;
            let body = self.ternary()?;
            self.expect(")")?;
            return Ok(Expr::Each(each, Box::new(of), variable, Box::new(body)));
        }
        let mut arguments = self.list(")")?;
        if name == "matches" && arguments.len() == 1 {
            return match arguments.pop() {
                Some(Expr::Str(pattern)) => Ok(Expr::Matches(Box::new(of), Pattern::new(pattern))),
                _ => Err(Error::UnknownFunction("matches of a computed pattern".into(), 1)),
            };
        }
        let function = match (name, arguments.len()) {
            ("size", 0) => Function::Size,
            ("contains", 1) => Function::Contains,
            ("startsWith", 1) => Function::StartsWith,
            ("endsWith", 1) => Function::EndsWith,
            ("substring", 1) => Function::Substring,
            ("split", 1) => Function::Split,
            (_, count) => return Err(Error::UnknownFunction(name.to_owned(), count)),
        };
        arguments.insert(0, of);
        Ok(Expr::Call(function, arguments))
    }

    /// Only as the rules use it: `format.dns1123Subdomain().validate(x).hasValue()`.
    fn format(&mut self) -> Result<Expr, Error> {
        self.words(&[".", "dns1123Subdomain", "(", ")", ".", "validate", "("])?;
        let argument = self.ternary()?;
        self.words(&[")", ".", "hasValue", "(", ")"])?;
        Ok(Expr::Call(Function::NotDns1123Subdomain, vec![argument]))
    }

    fn words(&mut self, words: &[&str]) -> Result<(), Error> {
        for word in words {
            match self.take()? {
                Token::Sign(found) if found == *word => {}
                Token::Word(found) if found == *word => {}
                other => return Err(Error::Unexpected(format!("{other:?}"))),
            }
        }
        Ok(())
    }
}

/// Property names that CEL reserves are written `__name__` (Kubernetes CRD validation rules).
fn unescape(name: &str) -> String {
    name.strip_prefix("__")
        .and_then(|name| name.strip_suffix("__"))
        .unwrap_or(name)
        .to_owned()
}
