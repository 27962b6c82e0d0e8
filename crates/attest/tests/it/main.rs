//! Appraisals through the public functions, with evidence that is really signed: one test for each
//! rejection.

#[cfg(test)]
mod channel;
#[cfg(test)]
mod genuine;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod host;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod parent;
#[cfg(test)]
mod support;
#[cfg(test)]
mod verdicts;
