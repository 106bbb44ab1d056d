//! YAML files of endpoints: any text is read without a panic, problems say where they are, and what was read is
//! exported to a file that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watcher::config::export::YamlWriter;
use watcher::config::file::from_yaml;

fuzz_target!(|text: &str| {
    let none = |_: &str| None;
    let loaded = from_yaml("f.yaml", text, &none);
    for problem in loaded.problems.iter().chain(&loaded.warnings) {
        assert!(
            problem.place.starts_with("f.yaml") && !problem.message.is_empty(),
            "{problem:?}"
        );
    }
    let definitions: Vec<_> = loaded.endpoints.into_iter().map(|l| l.definition).collect();
    let mut out = Vec::new();
    let mut writer = YamlWriter::new(&mut out);
    for definition in &definitions {
        writer.write(definition).unwrap();
    }
    writer.finish().unwrap();
    let text = String::from_utf8(out).unwrap();
    let again = from_yaml("again.yaml", &text, &none);
    assert_eq!(again.problems, [], "{text}");
    let again: Vec<_> = again.endpoints.into_iter().map(|l| l.definition).collect();
    let mut expected = definitions;
    for definition in &mut expected {
        // A number is exported only where there is no name.
        if definition.name.is_some() {
            definition.id = None;
        }
    }
    assert_eq!(again, expected, "{text}");
});
