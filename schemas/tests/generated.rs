//! Keeps the checked-in JSON Schemas and the AsyncAPI document up to date.

use otherix_schemas::asyncapi::asyncapi;
use otherix_schemas::json_schema;
use otherix_testkit::generated::assert_up_to_date;

#[test]
fn generated_json_schemas_are_up_to_date() {
    for (name, schema) in json_schema::all() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        assert_up_to_date(format!("json/{name}.json"), &text);
    }
}

#[test]
fn generated_schemas_have_a_type() {
    let known: Vec<String> = json_schema::all().into_iter().map(|(name, _)| format!("{name}.json")).collect();
    for file in std::fs::read_dir("json").unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(name == "asyncapi.yaml" || known.contains(&name), "json/{name} is the schema of no type: delete it");
    }
}

#[test]
fn generated_asyncapi_document_is_up_to_date() {
    let text = serde_yaml_ng::to_string(&asyncapi()).unwrap();
    assert_up_to_date("json/asyncapi.yaml", &format!("# Generated from schemas/src/asyncapi.rs.\n{text}"));
}
