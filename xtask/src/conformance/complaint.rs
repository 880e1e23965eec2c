//! What a failed assertion says, out of the lines that the suite's assertions print: `Error:`, more lines, `Test:`.

/// Reads lines one after another.
#[derive(Default)]
pub(crate) struct Complaints {
    /// What the assertion being read has said up to now.
    open: Vec<String>,
}

/// Lines of one complaint beyond which nothing is told: a difference of two objects is in the log.
const LINES: usize = 6;

impl Complaints {
    /// Takes a line; the complaint that it ends: the test and what was wrong.
    pub(crate) fn read(&mut self, line: &str) -> Option<(String, String)> {
        let line = line.trim();
        if let Some(said) = line.strip_prefix("Error:") {
            self.open = vec![said.trim().to_owned()];
            return None;
        }
        if self.open.is_empty() {
            return None;
        }
        if let Some(test) = line.strip_prefix("Test:") {
            let said = std::mem::take(&mut self.open).join(" ");
            return Some((test.trim().trim_start_matches("TestConformance/").to_owned(), said));
        }
        if !line.is_empty() && self.open.len() < LINES {
            self.open.push(line.to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_with_its_test() {
        let lines = "\
        Error Trace:\t/x/helpers.go:1
        Error:      \tReceived unexpected error:
                    \tcontext deadline exceeded
        Test:       \tTestConformance/GatewayA/part
        Messages:   \terror waiting";
        let mut complaints = Complaints::default();
        let told: Vec<_> = lines.lines().filter_map(|line| complaints.read(line)).collect();
        assert_eq!(
            told,
            [(
                "GatewayA/part".to_owned(),
                "Received unexpected error: context deadline exceeded".to_owned()
            )]
        );
    }

    #[test]
    fn a_test_without_an_error_is_not_told() {
        assert_eq!(Complaints::default().read("        Test:  \tTestConformance/A"), None);
    }
}
