//! Waits for a future on this thread. The store's reads are ready at once and its writer has a
//! thread of its own, so that callers need no runtime.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What `future` comes to.
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut idle = Context::from_waker(Waker::noop());
    if let Poll::Ready(done) = future.as_mut().poll(&mut idle) {
        return done;
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        thread::park();
    }
}
