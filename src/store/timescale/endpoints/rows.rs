//! A definition as a row, and back.

use serde_json::Value as Json;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::Stored;
use crate::config::Definition;

/// Of the columns of `wanted`, in the order of stage_copy.sql.
pub(super) const COLUMN_TYPES: &[Type] = &[
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT_ARRAY,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT_ARRAY,
    Type::BOOL,
    Type::JSONB,
];

/// The values of a row of `wanted`.
pub(super) struct StagedRow<'d> {
    ordinal: i64,
    definition: &'d Definition,
    settings: Json,
}

impl<'d> StagedRow<'d> {
    pub(super) fn new(ordinal: i64, definition: &'d Definition) -> Self {
        Self {
            ordinal,
            definition,
            settings: Json::Object(definition.settings.clone()),
        }
    }

    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 16] {
        let d = self.definition;
        [
            &self.ordinal,
            &d.id,
            &d.name,
            &d.group,
            &d.tags,
            &d.kind,
            &d.url,
            &d.interval_s,
            &d.timeout_ms,
            &d.degraded_after_ms,
            &d.cert_warn_days,
            &d.regex,
            &d.regex_not,
            &d.locations,
            &d.enabled,
            &self.settings,
        ]
    }
}

/// The columns of `endpoints` from column `first` on: id, name, group_name, tags, ….
pub(super) fn stored(row: &Row, first: usize) -> Stored {
    let id = row.get(first);
    let settings = match row.get(first + 14) {
        Json::Object(settings) => settings,
        // The table's CHECK knows only objects.
        _ => serde_json::Map::new(),
    };
    let definition = Definition {
        id: Some(id),
        name: row.get(first + 1),
        group: row.get(first + 2),
        tags: row.get(first + 3),
        kind: row.get(first + 4),
        url: row.get(first + 5),
        interval_s: row.get(first + 6),
        timeout_ms: row.get(first + 7),
        degraded_after_ms: row.get(first + 8),
        cert_warn_days: row.get(first + 9),
        regex: row.get(first + 10),
        regex_not: row.get(first + 11),
        locations: row.get(first + 12),
        enabled: row.get(first + 13),
        settings,
    };
    Stored { id, definition }
}
