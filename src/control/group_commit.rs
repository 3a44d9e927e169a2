//! One write for all who wait for the same object: while one of them writes, the others gather, and the next one takes
//! everybody's along. Nobody goes on before what he brought is written.
//!
//! Written one by one, a thousand leases of one dynamic secret that end together would meet each other's versions a thousand
//! times over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Those who wait, by the UID of the object that they write into.
pub struct GroupCommits<T> {
    groups: Mutex<HashMap<String, Arc<Group<T>>>>,
}

struct Group<T> {
    waiting: Mutex<Vec<Waiting<T>>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting<T> {
    item: T,
    written: oneshot::Sender<()>,
}

impl<T> Default for GroupCommits<T> {
    fn default() -> Self {
        Self {
            groups: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> GroupCommits<T> {
    /// Returns when `item` is written, by this call's `write` or by another's. `write` gets everything that waits, `item`
    /// among it, in the order in which it came; where it fails only this call does, and the others try for themselves.
    pub async fn write<E>(
        &self,
        uid: &str,
        item: T,
        write: impl AsyncFnOnce(Vec<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let place = Place::take(self, uid);
        let Some((_turn, mut batch)) = place.group.wait(&item).await else {
            return Ok(());
        };
        let items: Vec<T> = batch.iter().map(|waiting| waiting.item.clone()).collect();
        match write(items).await {
            Ok(()) => {
                for waiting in batch {
                    // Who does not wait any more needs no answer.
                    let _ = waiting.written.send(());
                }
                Ok(())
            }
            Err(error) => {
                // Ours is closed too: nobody waits for its answer any more.
                batch.retain(|waiting| !waiting.written.is_closed());
                lock(&place.group.waiting).splice(0..0, batch);
                Err(error)
            }
        }
    }
}

impl<T: Clone> Group<T> {
    /// None when somebody else has written the item; else it is this caller's turn to write all that is returned.
    async fn wait(&self, item: &T) -> Option<(tokio::sync::MutexGuard<'_, ()>, Vec<Waiting<T>>)> {
        loop {
            let (written, mut answer) = oneshot::channel();
            lock(&self.waiting).push(Waiting {
                item: item.clone(),
                written,
            });
            let turn = tokio::select! {
                biased;
                answered = &mut answer => match answered {
                    Ok(()) => return None,
                    // Whoever took it along was interrupted; it may be written or not, so it is brought again.
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
            };
            match answer.try_recv() {
                Ok(()) => return None,
                Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => return Some((turn, std::mem::take(&mut *lock(&self.waiting)))),
            }
        }
    }
}

/// Keeps a group in the table while somebody is in it.
struct Place<'a, T> {
    all: &'a GroupCommits<T>,
    uid: String,
    group: Arc<Group<T>>,
}

impl<'a, T> Place<'a, T> {
    fn take(all: &'a GroupCommits<T>, uid: &str) -> Self {
        let mut groups = lock(&all.groups);
        let group = groups.entry(uid.to_owned()).or_insert_with(|| {
            Arc::new(Group {
                waiting: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
            })
        });
        let group = Arc::clone(group);
        Self {
            all,
            uid: uid.to_owned(),
            group,
        }
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut groups = lock(&self.all.groups);
        // The table's and ours: under its lock nobody else can come in.
        if Arc::strong_count(&self.group) == 2 {
            groups.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    /// Writes that can be held, and what was written.
    struct Book {
        gate: Semaphore,
        begun: AtomicUsize,
        lines: Mutex<Vec<u32>>,
    }

    impl Book {
        fn held() -> Arc<Self> {
            Arc::new(Self {
                gate: Semaphore::new(0),
                begun: AtomicUsize::new(0),
                lines: Mutex::default(),
            })
        }

        async fn write(&self, items: &[u32]) -> Result<(), &'static str> {
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            if number == 0 && items.contains(&13) {
                return Err("refused");
            }
            lock(&self.lines).extend(items);
            Ok(())
        }

        async fn until_begun(&self, count: usize) {
            while self.begun.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    type Written = tokio::task::JoinHandle<Result<(), &'static str>>;

    fn bring(all: &Arc<GroupCommits<u32>>, book: &Arc<Book>, item: u32) -> Written {
        let (all, book) = (Arc::clone(all), Arc::clone(book));
        tokio::spawn(async move {
            all.write("uid", item, async |items: Vec<u32>| book.write(&items).await)
                .await
        })
    }

    async fn until_waiting(all: &GroupCommits<u32>, count: usize) {
        let waiting = || {
            lock(&all.groups)
                .get("uid")
                .map_or(0, |group| lock(&group.waiting).len())
        };
        while waiting() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_come_while_one_writes_are_written_together() {
        let (all, book) = (Arc::new(GroupCommits::default()), Book::held());
        let first = bring(&all, &book, 1);
        book.until_begun(1).await;
        let others: Vec<Written> = (2..=100).map(|item| bring(&all, &book, item)).collect();
        until_waiting(&all, 99).await;
        assert!(!first.is_finished(), "it went on before it was written");
        book.gate.add_permits(100);
        first.await.unwrap().unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(book.begun.load(Ordering::SeqCst), 2);
        assert_eq!(*lock(&book.lines), (1..=100).collect::<Vec<_>>());
        assert!(lock(&all.groups).is_empty(), "a group that nobody is in stays");
    }

    #[tokio::test]
    async fn a_write_that_fails_fails_for_its_writer_alone() {
        let (all, book) = (Arc::new(GroupCommits::default()), Book::held());
        let first = bring(&all, &book, 13);
        book.until_begun(1).await;
        let others = [bring(&all, &book, 2), bring(&all, &book, 3)];
        until_waiting(&all, 2).await;
        book.gate.add_permits(10);
        assert_eq!(first.await.unwrap(), Err("refused"));
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(*lock(&book.lines), [2, 3]);
    }

    #[tokio::test]
    async fn what_an_interrupted_writer_took_along_is_brought_again() {
        let (all, book) = (Arc::new(GroupCommits::default()), Book::held());
        let first = bring(&all, &book, 1);
        book.until_begun(1).await;
        let (second, third) = (bring(&all, &book, 2), bring(&all, &book, 3));
        until_waiting(&all, 2).await;
        book.gate.add_permits(1);
        first.await.unwrap().unwrap();
        book.until_begun(2).await;
        // One of the two writes for both; whichever it is, the other must not be lost with it.
        second.abort();
        assert!(second.await.is_err());
        book.gate.add_permits(10);
        third.await.unwrap().unwrap();
        assert!(lock(&book.lines).contains(&3));
    }
}
