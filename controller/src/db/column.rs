//! Reads columns of rows; what cannot be read is an inconsistency that names table, column and row.

use std::fmt::Display;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::DbError;

/// A row and what to call it in an error.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    row: &'a Row,
    table: &'static str,
    key: &'static str,
}

impl<'a> Columns<'a> {
    /// The columns of a row of `table`, whose UUID is in column `key`.
    pub(super) const fn new(row: &'a Row, table: &'static str, key: &'static str) -> Self {
        Self { row, table, key }
    }

    /// A column as PostgreSQL's driver reads it.
    pub(super) fn read<T: FromSql<'a>>(&self, column: &'static str) -> Result<T, DbError> {
        self.row.try_get(column).map_err(|error| self.wrong(column, error))
    }

    /// A column that the domain must accept.
    pub(super) fn parse<R, T>(&self, column: &'static str) -> Result<T, DbError>
    where
        R: FromSql<'a>,
        T: TryFrom<R>,
        T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        T::try_from(self.read::<R>(column)?).map_err(|error| self.wrong(column, error))
    }

    /// A column that may be null and otherwise must be accepted by the domain.
    pub(super) fn parse_opt<R, T>(&self, column: &'static str) -> Result<Option<T>, DbError>
    where
        R: FromSql<'a>,
        T: TryFrom<R>,
        T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.read::<Option<R>>(column)?.map(T::try_from).transpose().map_err(|error| self.wrong(column, error))
    }

    /// A JSON column.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, DbError> {
        serde_json::from_value(self.read(column)?).map_err(|error| self.wrong(column, error))
    }

    /// A JSON column that may be null.
    pub(super) fn json_opt<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, DbError> {
        let value: Option<serde_json::Value> = self.read(column)?;
        value.map(serde_json::from_value).transpose().map_err(|error| self.wrong(column, error))
    }

    /// The error for a column that holds something impossible.
    pub(super) fn wrong(
        &self,
        column: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> DbError {
        let id = self.row.try_get::<_, uuid::Uuid>(self.key).map_or_else(|_| "?".to_owned(), |id| id.to_string());
        DbError::inconsistent(self.table, column, id, source)
    }
}

/// A domain value as JSON for a column.
pub(super) fn to_json<T: serde::Serialize>(
    table: &'static str,
    column: &'static str,
    id: impl Display,
    value: &T,
) -> Result<serde_json::Value, DbError> {
    serde_json::to_value(value).map_err(|error| DbError::inconsistent(table, column, id.to_string(), error))
}
