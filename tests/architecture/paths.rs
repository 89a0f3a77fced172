//! Every path a file names, taken from its tokens.
//!
//! From tokens rather than from a syntax tree, because a tree ends at macros: `tracing::info!(…)`,
//! `matches!(…)` and `tokio::select! {…}` are bags of tokens to it, and so are the rules of a
//! `macro_rules!`. Comments are no tokens and doc comments are skipped, so that prose may name anything.

use std::iter::Peekable;
use std::vec::IntoIter;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::source::Source;

/// A file of the library, read.
pub(crate) struct Read<'a> {
    pub(crate) file: &'a Source,
    /// The modules that lead to it.
    pub(crate) modules: Vec<&'a str>,
    pub(crate) paths: Vec<Named>,
}

/// The library's files with what they name; problems of those that cannot be read.
pub(crate) fn library(files: &[Source]) -> (Vec<Read<'_>>, Vec<String>) {
    let (mut read, mut problems, mut test_modules) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let Some(modules) = file.module_path() else { continue };
        match names(&file.text) {
            Ok(Names { paths, test_modules: below }) => {
                test_modules.extend(below.into_iter().map(|below| [joined(&modules), below].concat()));
                read.push(Read { file, modules, paths });
            }
            Err(problem) => problems.push(format!("{} {problem}", file.path)),
        }
    }
    for Read { modules, paths, .. } in &mut read {
        if (1..=modules.len()).any(|end| test_modules.contains(&joined(&modules[..end]))) {
            for named in paths {
                named.in_tests = true;
            }
        }
    }
    (read, problems)
}

fn joined(modules: &[&str]) -> Vec<String> {
    modules.iter().map(|module| (*module).to_owned()).collect()
}

/// What one file names.
#[derive(Default)]
struct Names {
    paths: Vec<Named>,
    /// Modules that this file declares for tests only, whose text is in other files.
    test_modules: Vec<Vec<String>>,
}

/// One path, as it stands: `crate::{a, b::c}` is two of them.
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Inside something that only tests compile.
    pub(crate) in_tests: bool,
    /// Modules written in this file around it: `super` means something else in there.
    pub(crate) depth: usize,
    /// `use … as`: even a bare `crate` is then a name for everything.
    pub(crate) renamed: bool,
}

/// Reads `text`, which must at least consist of tokens.
fn names(text: &str) -> Result<Names, String> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("is no Rust: {error}"))?;
    let mut names = Names::default();
    names.walk(tokens, &Around::default());
    Ok(names)
}

/// Where in a file we are.
#[derive(Clone, Default)]
struct Around {
    modules: Vec<String>,
    in_tests: bool,
}

type Tokens = Peekable<IntoIter<TokenTree>>;

impl Names {
    fn walk(&mut self, tokens: TokenStream, around: &Around) {
        let mut tokens = stream(tokens);
        let mut around = around.clone();
        let outside = around.in_tests;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => self.attribute(&mut tokens, &mut around),
                TokenTree::Punct(mark) if mark.as_char() == ';' => around.in_tests = outside,
                TokenTree::Ident(word) if word == "mod" => {
                    self.module(&mut tokens, &around);
                    around.in_tests = outside;
                }
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    self.path(&mut tokens, vec![plain(&word.to_string())], line, &around);
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream(), &around);
                    if group.delimiter() == Delimiter::Brace {
                        around.in_tests = outside;
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => (),
            }
        }
    }

    /// `#[…]`: may make what follows a matter of tests, and may name paths, in text too (`serde`).
    fn attribute(&mut self, tokens: &mut Tokens, around: &mut Around) {
        next_if_mark(tokens, '!');
        let Some(TokenTree::Group(group)) = tokens.peek().cloned() else { return };
        tokens.next();
        let inside: Vec<TokenTree> = group.stream().into_iter().collect();
        let [TokenTree::Ident(name), rest @ ..] = inside.as_slice() else { return };
        if name == "doc" {
            return;
        }
        if name == "cfg" && rest.iter().any(|token| for_tests(&token.to_string())) {
            around.in_tests = true;
        }
        self.walk(group.stream(), around);
        self.texts(&group, around);
    }

    /// `#[serde(with = "crate::x")]` names a module as well.
    fn texts(&mut self, group: &Group, around: &Around) {
        for token in group.stream() {
            match token {
                TokenTree::Group(inner) => self.texts(&inner, around),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let text = text.trim_matches('"');
                    if text.starts_with("crate::")
                        && let Ok(tokens) = text.parse()
                    {
                        self.walk(tokens, around);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => (),
            }
        }
    }

    /// What follows `mod`, to its end.
    fn module(&mut self, tokens: &mut Tokens, around: &Around) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        let mut inner = around.clone();
        inner.modules.push(plain(&name.to_string()));
        match tokens.next() {
            Some(TokenTree::Group(body)) => self.walk(body.stream(), &inner),
            _ if around.in_tests => self.test_modules.push(inner.modules),
            _ => (),
        }
    }

    /// The rest of a path that began with `segments`; groups in it branch.
    fn path(&mut self, tokens: &mut Tokens, mut segments: Vec<String>, line: usize, around: &Around) {
        while next_is_double_colon(tokens) {
            tokens.next();
            tokens.next();
            match tokens.peek().cloned() {
                Some(TokenTree::Ident(word)) => segments.push(plain(&word.to_string())),
                Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => segments.push("*".to_owned()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    tokens.next();
                    return self.branches(&group, &segments, around);
                }
                // `::<` of a call: what stands in it is met again as a path of its own.
                _ => break,
            }
            tokens.next();
        }
        let renamed = matches!(tokens.peek(), Some(TokenTree::Ident(word)) if *word == "as");
        self.paths.push(Named {
            segments,
            line,
            in_tests: around.in_tests,
            depth: around.modules.len(),
            renamed,
        });
    }

    /// `{a, b::{c, d as e}, self, *}` after `stem`.
    fn branches(&mut self, group: &Group, stem: &[String], around: &Around) {
        let mut tokens = stream(group.stream());
        while let Some(token) = tokens.next() {
            let line = token.span().start().line;
            let word = match token {
                TokenTree::Ident(word) => plain(&word.to_string()),
                TokenTree::Punct(mark) if mark.as_char() == '*' => "*".to_owned(),
                _ => continue,
            };
            if word == "as" {
                tokens.next();
                continue;
            }
            let segments = stem.iter().cloned().chain([word]).collect();
            self.path(&mut tokens, segments, line, around);
        }
    }
}

fn stream(tokens: TokenStream) -> Tokens {
    tokens.into_iter().collect::<Vec<_>>().into_iter().peekable()
}

fn next_if_mark(tokens: &mut Tokens, wanted: char) {
    tokens.next_if(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == wanted));
}

/// `::`, and not the `:` of a type: the next is glued to it.
fn next_is_double_colon(tokens: &mut Tokens) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Punct(mark))
        if mark.as_char() == ':' && mark.spacing() == proc_macro2::Spacing::Joint)
}

/// `(test)`, `(any(test, feature = "testing"))`; `(not(test))` is the opposite.
fn for_tests(condition: &str) -> bool {
    let words: Vec<&str> = condition.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    !words.contains(&"not") && (words.contains(&"test") || words.contains(&"testing"))
}

/// `r#type` is `type`.
fn plain(word: &str) -> String {
    word.trim_start_matches("r#").to_owned()
}
