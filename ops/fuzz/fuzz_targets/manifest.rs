//! The YAML of manifests, as `otherix create -f` parses it.
#![no_main]
#![allow(dead_code, reason = "the CLI uses more of the module than this target")]

use libfuzzer_sys::fuzz_target;

#[path = "."] // paths below count from this folder
mod manifest {
    // The CLI has no library; this module needs nothing of it but the collection of problems.
    #[path = "../../../cli/src/manifest/yaml.rs"]
    mod yaml;

    mod problem {
        use std::marker::PhantomData;

        /// Takes the place of the CLI's collection of problems.
        #[derive(Default)]
        pub(super) struct ProblemScope<'a> {
            pub(super) document: Option<usize>,
            pub(super) problems: usize,
            lifetime: PhantomData<&'a ()>,
        }

        impl ProblemScope<'_> {
            pub(super) fn line(&mut self, line: usize, message: impl Into<String>) {
                assert!(line > 0 && !message.into().is_empty());
                self.problems += 1;
            }
        }
    }

    pub(super) fn parse(text: &str) {
        let mut scope = problem::ProblemScope::default();
        for document in yaml::documents(text, &mut scope) {
            let _value = document.root.value.scalar();
        }
    }
}

fuzz_target!(|text: &str| manifest::parse(text));
