//! Source files as the rules see them: a path and a text, from the disk or planted.

use std::fs;
use std::path::Path;

/// One file. Rules take lists of these, so that a planted violation is a string in a test.
pub(crate) struct Source {
    /// From the root of the repository, with `/`: `src/tokens/mod.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// A planted file.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The modules that lead to this file of the library; none for its root, `None` for what is no
    /// part of it.
    pub(crate) fn module_path(&self) -> Option<Vec<&str>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        if inside == "main" || inside.starts_with("bin/") {
            return None;
        }
        let mut modules: Vec<&str> = inside.split('/').collect();
        if modules.last().is_some_and(|last| *last == "mod" || *last == "lib") {
            modules.pop();
        }
        Some(modules)
    }
}

/// All files of Rust below `folders` of the repository, in order.
pub(crate) fn read(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in folders {
        collect(root, &root.join(folder), &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// A folder that is not there has no files: `examples/` and `benches/` come and go.
fn collect(root: &Path, folder: &Path, files: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("the repository is readable").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("it was found below the root");
            let text = fs::read_to_string(&path).expect("a source file is readable text");
            files.push(Source::new(&name.to_string_lossy().replace('\\', "/"), &text));
        }
    }
}
