//! `cargo xtask guests`: the programs that the tests run, built from `test/guests` into the cache.
//!
//! Idempotent: a recipe runs again only when the content of its sources, or the recipe itself, has changed. Each output
//! appears by a rename, so a test never sees half a guest. One broken toolchain does not keep the others from building.
mod component;
mod module;
mod npm;
mod python;
mod wit;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tools::cache_dir;

use crate::step;

/// How some guests are made. Those of one recipe are built together, because they share a toolchain's run.
struct Recipe {
    name: &'static str,
    /// File names of the outputs.
    guests: &'static [&'static str],
    /// What the outputs are made of, below `test/guests`: files, or directories with all in them.
    sources: &'static [&'static str],
    /// The source text of the recipe: other options make other outputs.
    text: &'static str,
    /// Puts each of `guests` into the directory that it is given.
    build: fn(&Place, &Path) -> Result<()>,
}

/// Where things are.
struct Place {
    /// `test/guests` of this checkout.
    sources: PathBuf,
    /// The root of the cache.
    cache: PathBuf,
}

impl Place {
    fn of_this_checkout() -> Result<Self> {
        Ok(Self {
            sources: Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../test/guests")
                .canonicalize()
                .context("find test/guests of this checkout")?,
            cache: cache_dir()?,
        })
    }

    /// Where toolchains and their own caches go.
    fn toolchains(&self) -> PathBuf {
        self.cache.join("guests-tools")
    }

    /// Cargo's target directory for the Rust guests.
    fn target(&self) -> PathBuf {
        self.cache.join("guests-target")
    }
}

/// In the order in which they are wanted: what most tests use comes first, what takes long comes last.
const RECIPES: &[Recipe] = &[
    Recipe {
        name: "wat",
        guests: module::WAT,
        sources: &["wat"],
        text: include_str!("guests/module.rs"),
        build: module::wat,
    },
    Recipe {
        name: "rust-wasip1",
        guests: &["hello.wasm", "probe.wasm"],
        sources: &["Cargo.toml", "Cargo.lock", "hello", "probe"],
        text: include_str!("guests/module.rs"),
        build: module::rust,
    },
    Recipe {
        name: "rust-wasip2",
        guests: component::RUST,
        sources: &[
            "Cargo.toml",
            "Cargo.lock",
            "hello",
            "hello-p3",
            "http-p2",
            "http-p3",
            "otel",
            "probe",
            "run-me",
        ],
        text: include_str!("guests/component.rs"),
        build: component::rust,
    },
    Recipe {
        name: "go",
        guests: &["hello-go.wasm", "big.wasm"],
        sources: &["hello-go", "big"],
        text: include_str!("guests/module.rs"),
        build: module::go,
    },
    Recipe {
        name: "c",
        guests: &["hello-c.wasm"],
        sources: &["hello-c", "requirements.txt"],
        text: include_str!("guests/module.rs"),
        build: module::c,
    },
    Recipe {
        name: "python",
        guests: &["http-py.wasm", "hello-py.wasm"],
        sources: &["Cargo.lock", "hello-py", "http-py", "requirements.txt"],
        text: include_str!("guests/component.rs"),
        build: component::python,
    },
    Recipe {
        name: "javascript",
        guests: &["http-js.wasm"],
        sources: &["Cargo.lock", "http-js", "requirements.txt"],
        text: include_str!("guests/component.rs"),
        build: component::javascript,
    },
];

/// Builds the guests that `wanted` names (`probe`, `http-js`), or all of them when it is empty.
pub(crate) fn run(wanted: &[String]) -> Result<()> {
    for guest in build(wanted)? {
        println!("{}", guest.display());
    }
    Ok(())
}

/// As [`run`], without a list on stdout.
pub(crate) fn build(wanted: &[String]) -> Result<Vec<PathBuf>> {
    let place = Place::of_this_checkout()?;
    let home = place.cache.join("guests");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    // A test run and a person may ask at once: the second waits and then finds all there.
    let lock = File::create(home.join(".lock")).context("create the lock of the guests")?;
    if lock.try_lock().is_err() {
        step::say("waiting for another `cargo xtask guests`");
        lock.lock().context("lock the guests directory")?;
    }

    let (mut built, mut failures) = (Vec::new(), Vec::new());
    for recipe in chosen(wanted)? {
        match bring_up_to_date(recipe, &place, &home) {
            Ok(()) => built.extend(recipe.guests.iter().map(|guest| home.join(guest))),
            Err(error) => {
                eprintln!("error: guests of {}: {error:#}", recipe.name);
                failures.push(recipe.name);
            }
        }
    }
    if !failures.is_empty() {
        bail!("build the guests of {}: see above", failures.join(", "));
    }
    Ok(built)
}

/// The C compiler of the guests' toolchains, which compiles for every processor.
pub(crate) fn zig() -> Result<PathBuf> {
    Ok(python::packages(&Place::of_this_checkout()?)?.file("ziglang/zig"))
}

/// The recipes that make what is wanted.
fn chosen(wanted: &[String]) -> Result<Vec<&'static Recipe>> {
    for name in wanted {
        if !RECIPES.iter().any(|recipe| recipe.makes(name)) {
            let all: Vec<&str> = RECIPES
                .iter()
                .flat_map(|recipe| recipe.guests)
                .map(|guest| stem(guest))
                .collect();
            bail!(
                "build guest {name}: there is none of that name; there are {}",
                all.join(", ")
            );
        }
    }
    Ok(RECIPES
        .iter()
        .filter(|recipe| wanted.is_empty() || wanted.iter().any(|name| recipe.makes(name)))
        .collect())
}

impl Recipe {
    fn makes(&self, name: &str) -> bool {
        self.guests
            .iter()
            .any(|guest| stem(guest) == name || *guest == name)
    }
}

fn stem(guest: &str) -> &str {
    guest.strip_suffix(".wasm").unwrap_or(guest)
}

fn bring_up_to_date(recipe: &Recipe, place: &Place, home: &Path) -> Result<()> {
    let stamp = home.join(format!(".made-{}", recipe.name));
    let state = digest(recipe, &place.sources)?;
    let complete = recipe.guests.iter().all(|guest| home.join(guest).is_file());
    if complete && fs::read_to_string(&stamp).is_ok_and(|made| made == state) {
        return Ok(());
    }

    let out = home.join(format!(".making-{}", recipe.name));
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))?;
    }
    fs::create_dir(&out).with_context(|| format!("create {}", out.display()))?;
    (recipe.build)(place, &out)?;
    for guest in recipe.guests {
        fs::rename(out.join(guest), home.join(guest))
            .with_context(|| format!("move {guest} to {}", home.display()))?;
    }
    fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))?;
    // Last: without it the recipe runs again.
    fs::write(&stamp, state).with_context(|| format!("write {}", stamp.display()))
}

/// A hash over everything that an output depends on, in hexadecimal.
fn digest(recipe: &Recipe, sources: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(recipe.text);
    hash.update(include_str!("../../rust-toolchain.toml"));
    for source in recipe.sources {
        add(&mut hash, sources, Path::new(source))?;
    }
    Ok(hex::encode(hash.finalize()))
}

/// Adds names and contents, each with its length before it, in the order of the names.
fn add(hash: &mut Sha256, root: &Path, path: &Path) -> Result<()> {
    let full = root.join(path);
    if full.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).with_context(|| format!("list {}", full.display()))? {
            names.push(path.join(entry?.file_name()));
        }
        names.sort();
        return names.iter().try_for_each(|name| add(hash, root, name));
    }
    let bytes = fs::read(&full).with_context(|| format!("read {}", full.display()))?;
    for part in [path.as_os_str().as_encoded_bytes(), &bytes] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<&'static str> {
        RECIPES
            .iter()
            .flat_map(|recipe| recipe.guests)
            .copied()
            .collect()
    }

    #[test]
    fn no_two_recipes_make_the_same_guest() {
        let mut once = names();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names().len());
    }

    #[test]
    fn every_source_is_there() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/guests");
        for recipe in RECIPES {
            digest(recipe, &sources).expect(recipe.name);
        }
    }

    #[test]
    fn every_text_fixture_is_built() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/guests/wat");
        for entry in fs::read_dir(directory).expect("list the text fixtures") {
            let name = entry
                .expect("read the directory")
                .file_name()
                .into_string()
                .expect("a plain name");
            let stem = name
                .strip_suffix(".wat")
                .expect("only text fixtures are there");
            let built = format!("{stem}.wasm");
            assert!(
                names().contains(&name.as_str()) || names().contains(&built.as_str()),
                "{name} is in no recipe"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = chosen(&["nosuch".to_string()])
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("nosuch") && error.contains("http-js"),
            "{error}"
        );
    }
}
