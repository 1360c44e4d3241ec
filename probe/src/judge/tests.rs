use super::*;

#[test]
fn identifiers_of_attacks_are_unique() {
    let mut ids: Vec<&str> =
        crate::attacks::in_every_run().chain(crate::attacks::in_binds()).map(|attack| attack.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn result_has_the_keys_of_runtime_probe_v1() {
    let result = AttackResult {
        control: "network".into(),
        id: "alg".into(),
        attack: "create a socket of AF_ALG".into(),
        expected: "EPERM".into(),
        observed: "EPERM".into(),
        verdict: Verdict::Held,
    };
    let expected = r#"{"row":"network","id":"alg","attack":"create a socket of AF_ALG","expected":"EPERM","seen":"EPERM","verdict":"held"}"#;
    assert_eq!(serde_json::to_string(&result).expect("JSON"), expected);
    let verdicts = [Verdict::NotHeld, Verdict::NotTried].map(|v| serde_json::to_string(&v).expect("JSON"));
    assert_eq!(verdicts, ["\"not_held\"", "\"not_tried\""]);
}
