-- What `certificates_by_slot_and_end` answers as well, from the index alone, needs no index of its own: each is written with every
-- certificate that is issued, put into use or replaced.
DROP INDEX certificates_by_slot;
