//! To be written: properties against slow twins.
