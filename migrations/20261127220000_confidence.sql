-- How sure the model was. Of a succeeded item whose answer had choices; results of before this have none.

alter table results
    -- Of the part that it was least sure of. Read with each result and by the filter of those for review.
    add column confidence real check (confidence between 0 and 1),
    -- By JSON pointer into the output, where its entries do not carry their own. Read with each result.
    add column field_confidence json,
    add constraint confidence_is_of_an_answer check (outcome = 'succeeded' or confidence is null),
    add constraint fields_have_a_least check (field_confidence is null or confidence is not null);
