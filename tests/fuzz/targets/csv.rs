//! CSV files of endpoints, likewise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watcher::config::csv::from_csv;
use watcher::config::export::CsvWriter;

fuzz_target!(|text: &[u8]| {
    let loaded = from_csv("f.csv", text);
    for problem in loaded.problems.iter().chain(&loaded.warnings) {
        assert!(
            problem.place.starts_with("f.csv") && !problem.message.is_empty(),
            "{problem:?}"
        );
    }
    let definitions: Vec<_> = loaded.endpoints.into_iter().map(|l| l.definition).collect();
    let mut out = Vec::new();
    let mut writer = CsvWriter::new(&mut out).unwrap();
    for definition in &definitions {
        writer.write(definition).unwrap();
    }
    writer.finish().unwrap();
    let again = from_csv("again.csv", out.as_slice());
    assert_eq!(again.problems, [], "{}", String::from_utf8_lossy(&out));
    let again: Vec<_> = again.endpoints.into_iter().map(|l| l.definition).collect();
    let mut expected = definitions;
    for (definition, again) in expected.iter_mut().zip(&again) {
        if again.id.is_none() {
            definition.id = None;
        }
    }
    assert_eq!(again, expected, "{}", String::from_utf8_lossy(&out));
});
