//! shared/pki
