//! How the store's methods run their statements.

/// A change with lease, request and events around it: `change!(self, keep, mutation, |tx, now| body)`.
macro_rules! change {
    ($self:ident, $keep:ident, $mutation:ident, |$tx:ident, $now:ident| $body:expr) => {
        $crate::store::sqlite::change::change(
            &$self.writer,
            $self.clock.clone(),
            $crate::store::sqlite::change::Keep::$keep,
            $mutation,
            move |$tx, $now| {
                Box::pin(async move {
                    // Not every change needs to know when it is made.
                    let _ = $now;
                    $body.await.map(Into::into)
                })
            },
        )
        .await
    };
}

/// A change with nothing around it.
macro_rules! write {
    ($self:ident, |$tx:ident, $now:ident| $body:expr) => {{
        let clock = $self.clock.clone();
        $self
            .writer
            .run(move |$tx| {
                Box::pin(async move {
                    let $now = clock.now();
                    let _ = $now;
                    $body.await
                })
            })
            .await
    }};
}

/// A read by one statement.
macro_rules! read {
    ($self:ident, |$tx:ident| $body:expr) => {{
        let mut connection = $self.readers.acquire().await?;
        let $tx: &mut sqlx::SqliteConnection = &mut connection;
        $body.await
    }};
}

/// A read by several statements, which see the same state.
macro_rules! snapshot {
    ($self:ident, |$tx:ident| $body:expr) => {{
        let mut snapshot = $self.readers.begin().await?;
        let $tx: &mut sqlx::SqliteConnection = &mut snapshot;
        let outcome = $body.await;
        snapshot.commit().await?;
        outcome
    }};
}
