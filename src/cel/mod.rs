//! Expressions over tasks and answers, compiled once at load: the only folder that knows CEL.
//!
//! An expression reads values and gives one back. It never changes anything, never reaches outside
//! its names, and an error in it is an error, never a pass.
//!
//! ## Why so many limits
//!
//! The interpreter has no budget of its own and walks expressions by recursion: a long chain
//! overflows the stack and ends the process, a triple loop over a hundred items takes most of a
//! second. So the source, the number of operators, the nesting of loops and the lists that are
//! handed in are all bounded here, and compiling happens in a thread of its own with a large stack.

mod convert;
mod functions;
mod shape;
mod truth;

pub use functions::{OURS, contains_text, contains_words, same_text};

use cel::{Context, Env, ExecutionError, ParseErrors, Program};
use serde_json::Value;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Bytes of source. With it the longest chain the parser can meet is about 1,000 terms; it
/// survives 5,000 on an 8 MB stack.
pub const SOURCE_MAX: usize = 2_048;
/// Operators, calls and field accesses, as written. Evaluation recurses once for each, about a kilobyte each time:
/// a tenth of a 2 MB worker stack.
pub const OPERATORS_MAX: usize = 200;
/// Loops (`all`, `exists`, `map`, `filter`, …) inside loops.
pub const NESTING_MAX: usize = 2;
/// Bytes of stack for compiling; see [`SOURCE_MAX`].
const COMPILE_STACK: usize = 16 << 20;
/// Turns of loops that evaluations over the same names may take together, by the longest list each sees:
/// about a second and a half. One alone takes a million at most; a rule that is asked for each item of a
/// hostile list would otherwise hold a worker for as many times longer.
const STEPS_MAX: u64 = 3_000_000;

/// A compiled expression. Cheap to clone, and the same for all tasks.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    program: Program,
    shape: shape::Shape,
    /// What is wrong with it where it, or a part of it, can be neither true nor false.
    never: Option<String>,
}

/// Why an expression cannot be used. Found at load, never while tasks flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression is empty")]
    Empty,
    #[error("the expression has {0} bytes, more than {SOURCE_MAX}; split it into several")]
    TooLong(usize),
    #[error("the expression has {0} operators, more than {OPERATORS_MAX}; split it into several")]
    TooManyOperators(usize),
    #[error("the expression nests {0} loops, more than {NESTING_MAX}; use `each`, or flatten it")]
    TooNested(usize),
    /// Line and column count from 1.
    #[error("line {line}, column {column}: {what}")]
    Syntax { line: usize, column: usize, what: String },
    #[error("unknown name `{name}`{}; known: {}", did_you_mean(.hint), .known.join(", "))]
    UnknownName { name: String, hint: Option<String>, known: Vec<String> },
    #[error("unknown function `{name}`{}", did_you_mean(.hint))]
    UnknownFunction { name: String, hint: Option<String> },
    /// It, or a part of it, can be neither true nor false; what it gives instead.
    #[error("the expression {0}")]
    NoTruth(String),
    #[error("the expression could not be compiled; please report it as a bug")]
    Crashed,
}

/// Why an expression gave no value for these names. The text names types and fields, and at most
/// a field's name out of the data; it never quotes values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("there is no field `{0}`")]
    NoField(String),
    #[error("unknown name `{0}`")]
    UnknownName(String),
    #[error("a list of {len} items is longer than the {max} an expression may loop over")]
    ListTooLong { len: usize, max: usize },
    #[error("too many steps together with what was evaluated before; give it shorter lists")]
    TooManySteps,
    #[error("the value is nested too deep")]
    TooDeep,
    #[error("{0}")]
    Failed(String),
}

/// The values expressions see, converted once for many evaluations on one thread, and what is left for
/// all of them together: steps, and text that is searched.
pub struct Names {
    context: Context<'static, 'static>,
    /// The longest list or object under each name.
    longest: Vec<(String, usize)>,
    steps: Cell<u64>,
}

impl Names {
    /// Converts the values. JSON integers become CEL ints (above 2^63 − 1: uints), other numbers
    /// doubles.
    pub fn new(names: &[(&str, &Value)]) -> Result<Names, EvalError> {
        let read = functions::Read::default();
        let mut context = Context::with_env(environment());
        functions::register(&mut context, &read);
        let longest = add(&mut context, names)?;
        Ok(Names { context, longest, steps: Cell::new(0) })
    }

    fn spend(&self, longest: usize, nesting: usize) -> Result<(), EvalError> {
        let turns = u64::try_from(longest.max(1)).unwrap_or(u64::MAX);
        let turns = (0..nesting).fold(1, |all: u64, _| all.saturating_mul(turns));
        self.steps.set(self.steps.get().saturating_add(turns));
        if self.steps.get() > STEPS_MAX { Err(EvalError::TooManySteps) } else { Ok(()) }
    }
}

/// Adds values to a context and gives the length of the longest list or object in each.
fn add(context: &mut Context<'_, '_>, names: &[(&str, &Value)]) -> Result<Vec<(String, usize)>, EvalError> {
    let mut lengths = Vec::with_capacity(names.len());
    for (name, value) in names {
        let mut longest = 0;
        context.add_variable_from_value(*name, convert::to_cel(value, &mut longest)?);
        lengths.push(((*name).to_owned(), longest));
    }
    Ok(lengths)
}

impl Expression {
    /// Compiles and checks the limits. Slow (a thread is started): at load only.
    pub fn compile(source: &str) -> Result<Expression, ExpressionError> {
        if source.trim().is_empty() {
            return Err(ExpressionError::Empty);
        }
        if source.len() > SOURCE_MAX {
            return Err(ExpressionError::TooLong(source.len()));
        }
        let source = source.to_owned();
        // In a thread of its own: a panic in the parser ends the thread, not the process, and
        // whatever is too long is also dropped on the large stack.
        let inner = std::thread::Builder::new()
            .name("compile-expression".into())
            .stack_size(COMPILE_STACK)
            .spawn(move || compile_here(source))
            .map_err(|_| ExpressionError::Crashed)?
            .join()
            .map_err(|_| ExpressionError::Crashed)??;
        Ok(Expression { inner: Arc::new(inner) })
    }

    /// Evaluates over these names.
    pub fn eval(&self, names: &[(&str, &Value)]) -> Result<Value, EvalError> {
        // Only what it uses is converted: a task may be large.
        let used: Vec<_> = names.iter().filter(|(n, _)| self.uses(n)).copied().collect();
        self.eval_in(&Names::new(&used)?, &[])
    }

    /// Evaluates over names converted before, and a few more that hide them.
    pub fn eval_in(&self, names: &Names, more: &[(&str, &Value)]) -> Result<Value, EvalError> {
        let mut context = names.context.new_inner_scope();
        let added = add(&mut context, more)?;
        let used = names.longest.iter().chain(&added).filter(|(name, _)| self.uses(name));
        let longest = used.map(|(_, len)| *len).max().unwrap_or(0);
        let max = self.list_max();
        if longest > max {
            return Err(EvalError::ListTooLong { len: longest, max });
        }
        names.spend(longest, self.nesting())?;
        // A panic of the interpreter is an error of this evaluation and nobody else's.
        let value = catch_unwind(AssertUnwindSafe(|| self.inner.program.execute(&context)))
            .map_err(|_| EvalError::Failed("the interpreter crashed on this value".into()))?;
        convert::to_json(&value.map_err(said)?, 0)
    }

    /// The top-level names it uses, sorted; not the variables of its own loops.
    pub fn names(&self) -> Vec<String> {
        self.inner.shape.names.clone()
    }

    /// Does it use this top-level name?
    pub fn uses(&self, name: &str) -> bool {
        self.inner.shape.names.iter().any(|n| n == name)
    }

    /// The longest chains of field accesses from a top-level name: `answer.medication`, `task.id`.
    pub fn fields(&self) -> &[String] {
        &self.inner.shape.fields
    }

    /// How deep its loops nest; 0 without a loop.
    pub fn nesting(&self) -> usize {
        self.inner.shape.nesting
    }

    /// Is every name it uses known? Says which is not, with a suggestion.
    pub fn check_names(&self, known: &[&str]) -> Result<(), ExpressionError> {
        match self.inner.shape.names.iter().find(|n| !known.contains(&n.as_str())) {
            None => Ok(()),
            Some(name) => Err(ExpressionError::UnknownName {
                name: name.clone(),
                hint: nearest(name, known.iter().copied()),
                known: known.iter().map(|k| (*k).to_owned()).collect(),
            }),
        }
    }

    /// Can it, and all its parts that count as conditions, be true or false at all? Says what is wrong where
    /// its form tells that it cannot.
    pub fn check_truth(&self) -> Result<(), ExpressionError> {
        match &self.inner.never {
            None => Ok(()),
            Some(wrong) => Err(ExpressionError::NoTruth(wrong.clone())),
        }
    }

    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// A step costs about half a microsecond, so the worst evaluation stays around half a second, and all
    /// over the same names within [`STEPS_MAX`]: without a loop the lists cost nothing but their conversion.
    fn list_max(&self) -> usize {
        match self.inner.shape.nesting {
            0 => usize::MAX,
            1 => 10_000,
            _ => 1_000,
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.inner.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.inner.source == other.inner.source
    }
}

fn compile_here(source: String) -> Result<Inner, ExpressionError> {
    let program = environment().compile(&source).map_err(syntax)?;
    let shape = shape::Shape::of(program.expression());
    if shape.operators > OPERATORS_MAX {
        return Err(ExpressionError::TooManyOperators(shape.operators));
    }
    if shape.nesting > NESTING_MAX {
        return Err(ExpressionError::TooNested(shape.nesting));
    }
    if let Some(name) = shape.functions.iter().find(|f| !functions::is_known(f)) {
        let hint = nearest(name, functions::KNOWN.iter().copied());
        return Err(ExpressionError::UnknownFunction { name: name.clone(), hint });
    }
    let never = truth::never(program.expression());
    Ok(Inner { source, program, shape, never })
}

/// The standard library and the string extension (`lowerAscii`, `split`, `trim`, `replace`, …).
fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    Arc::clone(ENVIRONMENT.get_or_init(|| {
        let mut env = Env::stdlib();
        let added = env.add_extension(cel::extensions::strings);
        debug_assert!(added.is_ok(), "the string extension is added once");
        Arc::new(env)
    }))
}

fn syntax(errors: ParseErrors) -> ExpressionError {
    let first = errors.errors.into_iter().next();
    let (line, column, what) = first.map_or((1, 1, String::new()), |e| (e.pos.0, e.pos.1, e.msg));
    let what = what.trim_start_matches("Syntax error: ").replace("<EOF>", "end of expression");
    let at = |n: isize| usize::try_from(n).unwrap_or(1).max(1);
    ExpressionError::Syntax { line: at(line), column: at(column), what: cut(&what, 200) }
}

/// Words for what went wrong, without the values it went wrong on.
fn said(error: ExecutionError) -> EvalError {
    use ExecutionError as E;
    match error {
        E::NoSuchKey(key) => EvalError::NoField(cut(&key, 80)),
        E::UndeclaredReference(name) => EvalError::UnknownName(cut(&name, 80)),
        E::NoSuchOverload(o) => EvalError::Failed(overload(&o)),
        E::ValuesNotComparable(a, b) => {
            EvalError::Failed(format!("{} and {} cannot be compared", a.type_of(), b.type_of()))
        }
        E::UnsupportedBinaryOperator(op, a, b) => {
            EvalError::Failed(format!("`{op}` does not work on {} and {}", a.type_of(), b.type_of()))
        }
        E::UnsupportedIndex(a, b) => {
            EvalError::Failed(format!("{} is no index into {}", a.type_of(), b.type_of()))
        }
        E::IndexOutOfBounds(_) => EvalError::Failed("an index lies outside its list".into()),
        E::DivisionByZero(_) | E::RemainderByZero(_) => EvalError::Failed("division by zero".into()),
        E::Overflow(op, ..) => EvalError::Failed(format!("`{op}` overflows")),
        E::FunctionError { function, message } => {
            EvalError::Failed(format!("`{function}`: {}", cut(&message, 120)))
        }
        E::InvalidArgumentCount { expected, actual } => {
            EvalError::Failed(format!("a function takes {expected} arguments and got {actual}"))
        }
        E::UnexpectedType { want, .. } => EvalError::Failed(format!("a value is not the {want} it must be")),
        // What is left prints values.
        _ => EvalError::Failed("an operation does not work on the values it got".into()),
    }
}

fn overload(error: &cel::OverloadError) -> String {
    let name = error.function().trim_matches('_').trim_start_matches('@');
    format!("`{name}` does not work on {}", error.argument_types().join(" and "))
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k.to_owned())
}

fn did_you_mean(hint: &Option<String>) -> String {
    hint.as_ref().map_or_else(String::new, |h| format!(", did you mean `{h}`?"))
}

fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
