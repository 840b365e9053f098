//! Bodies of the REST API, version 1: what goes over HTTP and into the OpenAPI document, and nothing else.
//!
//! A body becomes a domain value, or is made from one, in this folder only; it never becomes a row or a broker message.
//! What comes in refuses unknown fields. Secrets come in and never go out.

pub mod agent;
pub mod agent_door;
pub mod at_risk;
pub mod audit;
pub mod binding;
pub mod blocked_subject;
pub mod ca_endpoint;
pub mod ca_server;
pub mod campaign;
pub mod certificate;
pub mod change;
pub mod dead_letter;
pub mod device;
pub mod entity;
pub mod forecast;
pub mod freeze;
pub mod history;
pub mod job;
pub mod joining;
pub mod offered_root;
pub mod policy;
pub mod recovery;
pub mod revision;
pub mod revocation;
pub mod rollover;
pub mod service;
pub mod statistics;
pub mod tenant;
pub mod transcript;
pub mod trustpoint;

use serde::Serialize;
use utoipa::ToSchema;

/// A part of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The objects, at most `limit`.
    pub items: Vec<T>,
    /// What to give as `after` to read on; null at the end.
    #[schema(required)]
    pub next: Option<String>,
}

/// An enumeration of words in JSON that mirrors one of the domain's.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident mirrors $domain:path { $($(#[$variant_doc:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+ }

        impl From<$name> for $domain {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => Self::$variant),+ }
            }
        }

        impl From<$domain> for $name {
            fn from(word: $domain) -> Self {
                match word { $(<$domain>::$variant => Self::$variant),+ }
            }
        }
    };
}

/// The three shapes of something configured: to make it, to change it, and as it is.
macro_rules! configured {
    (
        $(#[$doc:meta])* $object:ident ($create:ident, $update:ident) of $id:ty {
            $($(#[doc = $field_doc:literal])* $(#[serde($($serde:tt)+)])? $(#[schema($($schema:tt)+)])? $field:ident : $type:ty,)+
        }
    ) => {
        #[doc = concat!("What makes a new ", stringify!($object), ".")]
        #[derive(Clone, Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $create {
            /// Its name, unique in the tenant: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
            #[schema(min_length = 1, max_length = 63)]
            pub name: String,
            $($(#[doc = $field_doc])* $(#[serde($($serde)+)])? $(#[schema($($schema)+)])? pub $field: $type,)+
        }

        #[doc = concat!("What changes a ", stringify!($object), ": all of it; a field left out takes its default.")]
        #[derive(Clone, Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $update {
            $($(#[doc = $field_doc])* $(#[serde($($serde)+)])? $(#[schema($($schema)+)])? pub $field: $type,)+
        }

        $(#[$doc])*
        #[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
        pub struct $object {
            /// Its id.
            #[schema(value_type = uuid::Uuid)]
            pub id: $id,
            /// Its name, unique in the tenant.
            pub name: String,
            /// Grows with every change, from 1; for `If-Match`.
            pub revision: u32,
            /// When it was made.
            #[schema(value_type = String, format = DateTime)]
            pub created_at: jiff::Timestamp,
            /// When it was last changed.
            #[schema(value_type = String, format = DateTime)]
            pub updated_at: jiff::Timestamp,
            $($(#[doc = $field_doc])* pub $field: $type,)+
        }

        impl $create {
            /// The name, and the rest as for a change.
            pub fn split(self) -> (String, $update) {
                (self.name, $update { $($field: self.$field),+ })
            }
        }
    };
}

pub(in crate::api) use {configured, words};
