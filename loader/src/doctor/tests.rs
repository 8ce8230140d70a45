use super::*;
use crate::binfmt::tests::{demotic, qemu};

fn level(finding: Finding) -> Level {
    assert_eq!(finding.level == Level::Ok, finding.advice.is_none(), "{finding:?}");
    finding.level
}

#[test]
fn every_check_answers() {
    let report = Report::new(&Host::of_this_machine(), CHECKS);
    assert_eq!(report.checks.len(), CHECKS.len());
    for row in &report.checks {
        assert!(!row.finding.found.is_empty(), "{row:?}");
        level(row.finding.clone());
    }
    let names: std::collections::BTreeSet<_> = CHECKS.iter().map(|c| (c.group, c.name)).collect();
    assert_eq!(names.len(), CHECKS.len(), "names are unique");
}

#[test]
fn levels() {
    let is = |finding, expected| assert_eq!(level(finding), expected);
    is(architecture("x86_64"), Level::Problem);
    is(page_size(4096), Level::Ok);
    is(page_size(16384), Level::Note);
    is(page_size(65536), Level::Warning);
    is(address_bits(39), Level::Problem);
    is(address_bits(47), Level::Note);
    is(address_bits(48), Level::Ok);
    is(kernel_version((4, 14)), Level::Problem);
    is(kernel_version((5, 10)), Level::Note);
    is(kernel_version((5, 12)), Level::Ok);
    is(kernel_version((7, 0)), Level::Ok);
    is(registration(None::<(&String, &str)>), Level::Warning);
    is(registration(Some((&"rosetta".into(), "/r"))), Level::Warning);
    is(registration(Some((&"demotic".into(), "/d"))), Level::Ok);
    is(address_space(Some(1 << 29)), Level::Problem);
    is(address_space(None), Level::Ok);
    is(open_files(Some(32)), Level::Warning);
    is(open_files(Some(1024)), Level::Ok);
    is(overcommit(Some(2)), Level::Warning);
    is(overcommit(None), Level::Ok);
    is(map_count(Some(100)), Level::Warning);
    is(lowest_address(Some(1 << 20)), Level::Note);
    is(mode(Some(0o100755)), Level::Ok);
    is(mode(Some(0o104755)), Level::Warning);
    is(mode(Some(0o100757)), Level::Warning);
    is(mode(Some(0o100700)), Level::Warning);
}

#[test]
fn handlers_are_told_in_their_order() {
    assert_eq!(handlers(&[]).found, "none");
    let off = Entry { enabled: false, ..qemu() };
    let found = handlers(&[demotic(), off]).found;
    let words = ["demotic (/usr/bin/demotic, flags POCF, on), qemu-x86_64 (", ", off)"];
    assert!(found.starts_with(words[0]) && found.ends_with(words[1]), "{found}");
    assert_eq!(level(second_name_of(None)), Level::Note);
    assert_eq!(level(second_name_of(Some("/x".into()))), Level::Ok);
}

#[test]
fn the_model_is_the_one_that_code_is_made_for() {
    let mut features = HostFeatures::default();
    assert!(memory_model(true, &features).contains("processor's own"));
    assert!(memory_model(false, &features).contains("LDAR and STLR"));
    features.lrcpc = true;
    assert!(memory_model(false, &features).contains("LDAPR"));
    features.lrcpc2 = true;
    assert!(memory_model(false, &features).contains("LDAPUR"));
}

#[test]
fn one_problem_is_enough() {
    const ROWS: &[Check] = &[
        Check { group: "a", name: "x", probe: |_| Finding::ok("1") },
        Check { group: "a", name: "y", probe: |_| Finding::bad(Level::Warning, "2", "do this") },
        Check { group: "b", name: "z", probe: |_| Finding::bad(Level::Problem, "3", "do that") },
    ];
    let host = Host::of_this_machine();
    let report = Report::new(&host, ROWS);
    assert!(!report.programs_run && Report::new(&host, &ROWS[..2]).programs_run);
    let text = report.text();
    assert!(text.starts_with("a\n"), "{text}");
    assert!(text.contains("(do this)\nb\n  PROBLEM  z"), "{text}");
    let value: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
    assert_eq!(value["checks"][1]["level"], "warning");
    assert_eq!(value["checks"][1]["advice"], "do this");
    assert_eq!(value["checks"][0].get("advice"), None);
    assert_eq!(value["programs_run"], false);
}
