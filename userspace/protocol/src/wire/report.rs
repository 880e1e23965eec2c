use pierhead_model::{DataPath, DataPathReport};

use super::bind::BindKeyMessage;

wire_numbers! {
    DataPath { Kernel = 1, Steered = 2, Bound = 3, None = 4 }
}

wire_lists!(DataPathReport);

wire_struct! {
    DataPathReport as DataPathReportMessage {
        bind: BindKeyMessage [message, required, tag = "1"],
        path: u32 [uint32, tag = "2"],
        why: String [string, tag = "3"],
    }
}
