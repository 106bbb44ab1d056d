//! What `apply` and `import` share: stage, compare, write, in one transaction.

use crate::cli::output::Progress;
use crate::config::{Located, Problem};
use crate::store::timescale::Connection;
use crate::store::timescale::endpoints::{Difference, Editor, Stored};

use super::explained;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// Delete what is not wanted.
    pub(super) prune: bool,
    /// Only compare.
    pub(super) dry_run: bool,
}

/// What was written, or would be.
pub(super) struct Outcome {
    pub(super) difference: Difference,
    /// What was deleted, with `prune`.
    pub(super) removed: Vec<Stored>,
}

/// Why nothing was written.
pub(super) enum Refused {
    /// Items that do not fit the table.
    Problems(Vec<Problem>),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Makes the table as `wanted` says, by `mode`.
pub(super) async fn write(
    connection: &mut Connection,
    wanted: &[Located],
    mode: Mode,
) -> Result<Outcome, Refused> {
    let count = wanted.len() as u64;
    let mut editor = explained(Editor::begin(&mut connection.client, !mode.dry_run).await)?;
    let mut progress = Progress::new("sending endpoints", count);
    let definitions = wanted.iter().map(|located| &located.definition);
    explained(
        editor
            .stage(definitions, &mut |done| progress.at(done))
            .await,
    )?;
    progress.finish();

    let unfit = explained(editor.match_rows().await)?;
    if !unfit.is_empty() {
        let problem = |(ordinal, message): (i64, String)| {
            let place = usize::try_from(ordinal).ok().and_then(|n| wanted.get(n));
            let place = place.map(|located| located.place.to_string());
            Problem::of("id", message).at(place.unwrap_or_default())
        };
        return Err(Refused::Problems(unfit.into_iter().map(problem).collect()));
    }
    let difference = explained(editor.difference().await)?;
    let removed = match mode.prune {
        true => explained(editor.absent().await)?,
        false => Vec::new(),
    };
    let is_changed = !difference.added.is_empty() || !difference.changed.is_empty();
    if !mode.dry_run && (is_changed || !removed.is_empty()) {
        let mut progress = Progress::new("writing endpoints", count);
        let mut at = |done| progress.at(done);
        if let Err(error) = editor.write(mode.prune, &mut at).await {
            // A CHECK of the table, or a name that another row has: the server's words name it.
            let words = error.server_message().unwrap_or_else(|| error.to_string());
            let failed = explained(Err::<(), _>(error)).err();
            return Err(Refused::Failed(match failed {
                Some(error) => error.context(format!("nothing was written: {words}")),
                None => anyhow::anyhow!(words),
            }));
        }
        explained(editor.commit().await)?;
        progress.finish();
    }
    Ok(Outcome {
        difference,
        removed,
    })
}
