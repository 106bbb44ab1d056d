//! The Prometheus text format: rendered by each process, merged by the supervisor.

use std::collections::BTreeMap;
use std::fmt::Write;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::names;

/// Renders what this process has counted.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Makes this exporter the process's recorder. Once a process.
    pub fn install() -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(names::BATCH_ROWS.into()), &names::ROWS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &names::SECONDS)?
            .install_recorder()?;
        names::describe();
        Ok(Self(handle))
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = self.0.render();
        if let Some(probes) = super::PROBES.get() {
            probes.render(&mut text);
        }
        text
    }

    /// Folds recorded values into their buckets. Must be called every few seconds: until then each value is kept.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// One text of several processes: each sample gets the label `partition`, each family stands together once, as the
/// format demands.
pub fn merge<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<String>)> = BTreeMap::new();
    for (partition, text) in texts {
        let mut family = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                family = comment.split(' ').nth(1).unwrap_or("");
                let (comments, _) = families.entry(family).or_default();
                if !comments.contains(&line) {
                    comments.push(line);
                }
            } else {
                families
                    .entry(family)
                    .or_default()
                    .1
                    .push(labelled(line, partition));
            }
        }
    }
    let mut merged = String::new();
    for (comments, samples) in families.values() {
        for line in comments {
            let _ = writeln!(merged, "{line}");
        }
        for line in samples {
            let _ = writeln!(merged, "{line}");
        }
    }
    merged
}

fn labelled(line: &str, partition: &str) -> String {
    if partition.is_empty() {
        return line.to_owned();
    }
    let name_end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    match rest.strip_prefix('{') {
        Some(labels) => format!("{name}{{partition=\"{partition}\",{labels}"),
        None => format!("{name}{{partition=\"{partition}\"}}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_several_processes_stand_together() {
        let one =
            "# HELP a_total A\n# TYPE a_total counter\na_total{x=\"1\"} 3\n\n# TYPE b gauge\nb 1\n";
        let two = "# HELP a_total A\n# TYPE a_total counter\na_total{x=\"1\"} 4\n";
        assert_eq!(
            merge([("0", one), ("1", two)]),
            "# HELP a_total A\n# TYPE a_total counter\n\
             a_total{partition=\"0\",x=\"1\"} 3\na_total{partition=\"1\",x=\"1\"} 4\n\
             # TYPE b gauge\nb{partition=\"0\"} 1\n"
        );
    }
}
