-- What a lenient source could not be read of: Omissions, absent where nothing was left out. submit writes it once;
-- the view of one job reads it, lists do not.
alter table jobs add column left_out json;
