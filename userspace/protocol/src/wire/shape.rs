//! The shapes that messages have, so that each type is written once: message, way there, way back.

/// Values that are a number on the wire. Zero stands for none of them: what is absent must not mean something.
macro_rules! wire_numbers {
    ($($model:ident { $($variant:ident = $number:literal),* $(,)? })*) => {$(
        impl $crate::wire::Wire for $model {
            type Message = u32;

            fn to_message(&self) -> u32 {
                match self {
                    $(Self::$variant => $number,)*
                }
            }

            fn from_message(message: u32) -> Result<Self, $crate::wire::Malformed> {
                match message {
                    $($number => Ok(Self::$variant),)*
                    0 => Err($crate::wire::Malformed::new("it is missing")),
                    other => Err($crate::wire::Malformed::new(format!(
                        concat!("{} is no ", stringify!($model), " that this version knows"),
                        other,
                    ))),
                }
            }
        }
    )*};
}

/// A struct of the model and its message, field by field: `name: type in the message [what prost must know]`. A check is
/// what holds for every value that can be right, and what is said when it does not.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        $model:ty as $message:ident {
            $($field:ident: $type:ty [$($prost:tt)*],)*
        }
        $(check |$value:ident| { $($holds:expr => $why:literal,)* })?
    ) => {
        #[derive(Clone, PartialEq, ::prost::Message)]
        $(#[$meta])*
        pub(crate) struct $message {
            $(#[prost($($prost)*)] pub(crate) $field: $type,)*
        }

        impl $crate::wire::Wire for $model {
            type Message = $message;

            fn to_message(&self) -> $message {
                let Self { $($field),* } = self;
                $message { $($field: $crate::wire::Wire::to_message($field)),* }
            }

            fn from_message(message: $message) -> Result<Self, $crate::wire::Malformed> {
                use $crate::wire::At as _;

                let $message { $($field),* } = message;
                let value = Self {
                    $($field: $crate::wire::Wire::from_message($field).at(stringify!($field))?,)*
                };
                $(
                    let $value = &value;
                    $(if !$holds {
                        return Err($crate::wire::Malformed::new($why));
                    })*
                )?
                Ok(value)
            }
        }
    };
}

/// An enum of the model whose variants carry something. `one` are its variants with one value; `many` are those with named
/// fields, or with none, each a message of its own.
macro_rules! wire_enum {
    (
        $model:ident as $message:ident of $kind:ident in $tags:tt {
            $(one $one:ident: $one_type:ty [$($one_prost:tt)*],)*
            $(many $many:ident as $many_message:ident [$tag:tt] {
                $($field:ident: $type:ty [$($prost:tt)*],)*
            },)*
        }
    ) => {
        #[derive(Clone, PartialEq, ::prost::Message)]
        pub(crate) struct $message {
            #[prost(oneof($kind), tags = $tags)]
            pub(crate) kind: Option<$kind>,
        }

        #[derive(Clone, PartialEq, ::prost::Oneof)]
        pub(crate) enum $kind {
            $(#[prost($($one_prost)*)] $one($one_type),)*
            $(#[prost(message, tag = $tag)] $many($many_message),)*
        }

        $(
            #[derive(Clone, PartialEq, ::prost::Message)]
            pub(crate) struct $many_message {
                $(#[prost($($prost)*)] pub(crate) $field: $type,)*
            }
        )*

        impl $crate::wire::Wire for $model {
            type Message = $message;

            fn to_message(&self) -> $message {
                let kind = match self {
                    $(Self::$one(value) => $kind::$one($crate::wire::Wire::to_message(value)),)*
                    $(Self::$many { $($field),* } => $kind::$many($many_message {
                        $($field: $crate::wire::Wire::to_message($field)),*
                    }),)*
                };
                $message { kind: Some(kind) }
            }

            fn from_message(message: $message) -> Result<Self, $crate::wire::Malformed> {
                use $crate::wire::At as _;

                match message.kind {
                    $(Some($kind::$one(value)) => {
                        Ok(Self::$one($crate::wire::Wire::from_message(value).at(stringify!($one))?))
                    })*
                    $(Some($kind::$many($many_message { $($field),* })) => Ok(Self::$many {
                        $($field: $crate::wire::Wire::from_message($field)
                            .at(stringify!($field))
                            .at(stringify!($many))?,)*
                    }),)*
                    None => Err($crate::wire::Malformed::new(concat!(
                        "it is missing, or a ", stringify!($model), " that this version does not know",
                    ))),
                }
            }
        }
    };
}

/// Types of which a message holds any number.
macro_rules! wire_lists {
    ($($model:ty),* $(,)?) => {$(
        impl $crate::wire::Wire for Vec<$model> {
            type Message = Vec<<$model as $crate::wire::Wire>::Message>;

            fn to_message(&self) -> Self::Message {
                self.iter().map($crate::wire::Wire::to_message).collect()
            }

            fn from_message(message: Self::Message) -> Result<Self, $crate::wire::Malformed> {
                use $crate::wire::At as _;

                // Collected as a `Result` it would have room for four.
                let mut values = Self::with_capacity(message.len());
                for (number, value) in message.into_iter().enumerate() {
                    values.push($crate::wire::Wire::from_message(value).at(&format!("[{number}]"))?);
                }
                Ok(values)
            }
        }
    )*};
}
