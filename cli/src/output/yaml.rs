//! Networks and VMs as manifests that create them again: only what somebody may ask for, and nothing that is absent.

use otherix_schemas::network::{EgressView, NetworkKind, NetworkView};
use otherix_schemas::vm::VmView;

use super::text::is_deceptive;
use crate::manifest::{API_VERSION, NETWORK, VM};

/// Words that are no texts to one reader of YAML or another (YAML 1.1, types `bool` and `null`).
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// One network.
pub(crate) fn network(view: &NetworkView) -> String {
    let mut spec = vec![("type", view.kind.to_string())];
    let mut field = |name, value: Option<String>| spec.extend(value.map(|value| (name, value)));
    match view.kind {
        NetworkKind::Bridge => {
            field("bridgeName", Some(scalar(&view.bridge_name)));
            field("managed", Some(view.managed.to_string()));
            field("egress", Some(egress(view.egress).to_owned()));
            field("subnet", view.subnet.map(|subnet| subnet.to_string()));
            field("gateway", view.gateway.map(|gateway| gateway.to_string()));
            field("mtu", Some(view.mtu.to_string()));
            field("vlan", view.vlan.map(|vlan| vlan.to_string()));
        }
        // All else of an overlay is the control plane's to choose.
        NetworkKind::Overlay => field("subnet", view.subnet.map(|subnet| subnet.to_string())),
    }
    manifest(NETWORK, view.name.as_str(), &spec)
}

/// One VM. Nobody knows whether its node was asked for, so that another may be chosen.
pub(crate) fn vm(view: &VmView) -> String {
    let mut spec = vec![("imageURL", scalar(view.image_url.as_str())), ("arch", view.arch.to_string())];
    spec.extend(view.nic.as_ref().map(|nic| ("network", scalar(nic.network_name.as_str()))));
    manifest(VM, view.name.as_str(), &spec)
}

fn manifest(kind: &str, name: &str, spec: &[(&str, String)]) -> String {
    let spec: String = spec.iter().map(|(field, value)| format!("  {field}: {value}\n")).collect();
    format!("apiVersion: {API_VERSION}\nkind: {kind}\nmetadata:\n  name: {}\nspec:\n{spec}", scalar(name))
}

/// Several manifests, in documents of one file.
pub(crate) fn documents(manifests: impl Iterator<Item = String>) -> String {
    manifests.collect::<Vec<_>>().join("---\n")
}

fn egress(egress: EgressView) -> &'static str {
    match egress {
        EgressView::Nat => "nat",
        EgressView::None => "none",
    }
}

/// A text, quoted unless every reader of YAML takes it for a text as it is.
fn scalar(text: &str) -> String {
    let letter_first = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let word = WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if letter_first && text.chars().all(harmless) && !word { text.to_owned() } else { quote(text) }
}

/// YAML's double-quoted style (YAML 1.2.2, section 7.3.1), in one line, with everything escaped that one cannot see or a
/// reader would refuse.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Not printable to YAML (section 5.1), though Unicode's to use for nothing.
            '\u{fffe}' | '\u{ffff}' => escape(c, &mut quoted),
            c if is_deceptive(c) => escape(c, &mut quoted),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn escape(c: char, to: &mut String) {
    let code = u32::from(c);
    to.push_str(&if code > 0xffff { format!("\\U{code:08x}") } else { format!("\\u{code:04x}") });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_quoted_where_it_could_be_taken_for_something_else() {
        for plain in ["net-dev", "a", "br_0", "yess", "v1.2", "Null-a"] {
            assert_eq!(scalar(plain), plain);
        }
        for (text, quoted) in [
            ("yes", "\"yes\""),
            ("NULL", "\"NULL\""),
            ("1", "\"1\""),
            ("1e3", "\"1e3\""),
            (".inf", "\".inf\""),
            ("~", "\"~\""),
            ("-", "\"-\""),
            ("---", "\"---\""),
            ("a: b", "\"a: b\""),
            ("#x", "\"#x\""),
            ("a #b", "\"a #b\""),
            ("*a", "\"*a\""),
            ("a\"\\b", r#""a\"\\b""#),
            ("网络", "\"网络\""),
            ("a\u{202e}b\u{e0001}\u{ffff}", r#""a\u202eb\U000e0001\uffff""#),
        ] {
            assert_eq!(scalar(text), quoted);
        }
    }
}
