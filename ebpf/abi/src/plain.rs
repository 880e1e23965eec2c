//! One way to declare a struct that crosses the boundary: `repr(C)`, no hidden padding, any bit pattern valid.

/// Declares a `repr(C)` struct of integers and arrays of integers with an asserted size and no padding.
macro_rules! plain {
    (
        $(#[$attr:meta])*
        pub struct $name:ident: $size:literal {
            $($(#[$field_attr:meta])* pub $field:ident: $ty:ty,)+
        }
    ) => {
        $(#[$attr])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            $($(#[$field_attr])* pub $field: $ty,)+
        }

        const _: () = assert!(size_of::<$name>() == $size, "size is part of the ABI");
        const _: () = assert!(0 $(+ size_of::<$ty>())+ == $size, "padding must be explicit");

        impl $name {
            /// Size in bytes, as in the map definition.
            pub const SIZE: usize = $size;

            /// The bytes as the kernel sees them.
            #[inline(always)]
            pub const fn to_bytes(self) -> [u8; $size] {
                // SAFETY: the asserts above: same size, no padding, so every byte is initialised.
                unsafe { core::mem::transmute(self) }
            }

            /// Reads what the kernel wrote. Every bit pattern is a value: fields are integers or arrays of them.
            #[inline(always)]
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                // SAFETY: same size, and every bit pattern is valid for integers.
                unsafe { core::mem::transmute(bytes) }
            }
        }
    };
}

pub(crate) use plain;
