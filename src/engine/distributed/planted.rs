//! Mistakes that can be put in on purpose, to see that the simulator finds them.
//!
//! Without the feature `for-tests` every question here is answered `false` at compile time.

/// One mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Offsets are committed beside the transaction, not in it.
    OffsetsOutside,
    /// Offsets of an earlier moment are sent under the membership of now.
    MembershipOfNow,
    /// The ledger is told before the transaction has ended.
    CloseBeforeCommit,
    /// The offset is read back while the old producer may still be ending its transaction.
    ReadBackUnsettled,
    /// Another member id is no reason to read the offsets again.
    MemberIdIgnored,
    /// Offsets are computed as if what still waits were in the transaction too.
    LaterSnapshot,
    /// The holes below a completed record are not written down.
    HolesDropped,
    /// Offsets are read although a transaction that writes them is open.
    LoadUnstable,
    /// After an unanswered commit the batch is taken for committed.
    UnknownIsVisible,
    /// An answer that could not be stored is not stored later.
    AnswerForgotten,
    /// The ledger lets whoever was admitted once start an effect.
    StaleFenceStarts,
    /// The ledger believes what a record on a task topic says of its origin.
    OriginBelieved,
    /// Whoever comes back to the ledger judges at once who has lapsed.
    JudgesAtOnce,
}

pub const ALL: [Bug; 13] = [
    Bug::OffsetsOutside,
    Bug::MembershipOfNow,
    Bug::CloseBeforeCommit,
    Bug::ReadBackUnsettled,
    Bug::MemberIdIgnored,
    Bug::LaterSnapshot,
    Bug::HolesDropped,
    Bug::LoadUnstable,
    Bug::UnknownIsVisible,
    Bug::AnswerForgotten,
    Bug::StaleFenceStarts,
    Bug::OriginBelieved,
    Bug::JudgesAtOnce,
];

#[cfg(feature = "for-tests")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread makes this mistake, and no other.
#[cfg(feature = "for-tests")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(feature = "for-tests")]
pub(super) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "for-tests"))]
pub(super) const fn is(_: Bug) -> bool {
    false
}
