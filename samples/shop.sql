-- A mail-order shop for tea and kitchen ware. PostgreSQL dialect. Written for adit.

CREATE TABLE countries (
    code        char(2) PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    in_customs_union boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE countries IS 'ISO 3166 countries that we ship to';

CREATE TABLE customers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email       text NOT NULL UNIQUE,
    full_name   text NOT NULL,
    phone       text,
    referred_by bigint REFERENCES customers (id),
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE customers IS 'People who have an account';
COMMENT ON COLUMN customers.referred_by IS 'The customer whose link they followed';

CREATE TABLE addresses (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id  bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    country_code char(2) NOT NULL REFERENCES countries (code),
    street       text NOT NULL,
    postcode     varchar(12),
    city         text NOT NULL
);

CREATE TABLE categories (
    id        integer PRIMARY KEY,
    parent_id integer REFERENCES categories (id),
    title     text NOT NULL
);
COMMENT ON TABLE categories IS 'Shelves of the catalogue, as a tree';

CREATE TABLE suppliers (
    id           integer PRIMARY KEY,
    company_name text NOT NULL,
    country_code char(2) REFERENCES countries (code),
    lead_days    smallint
);

CREATE TABLE products (
    sku          varchar(20) PRIMARY KEY,
    category_id  integer NOT NULL REFERENCES categories (id),
    title        text NOT NULL,
    description  text,
    unit_price   numeric(10, 2) NOT NULL CHECK (unit_price >= 0),
    vat_percent  numeric(4, 2) NOT NULL DEFAULT 19,
    weight_grams integer,
    discontinued boolean NOT NULL DEFAULT false
);

-- Which supplier delivers which product, and at what price.
CREATE TABLE product_suppliers (
    product_sku    varchar(20) NOT NULL REFERENCES products (sku),
    supplier_id    integer NOT NULL REFERENCES suppliers (id),
    purchase_price numeric(10, 2) NOT NULL,
    preferred      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (product_sku, supplier_id)
);

CREATE TABLE warehouses (
    id         integer PRIMARY KEY,
    name       text NOT NULL,
    address_id bigint UNIQUE REFERENCES addresses (id)
);

CREATE TABLE stock_levels (
    warehouse_id integer NOT NULL,
    product_sku  varchar(20) NOT NULL,
    on_hand      integer NOT NULL DEFAULT 0,
    reserved     integer NOT NULL DEFAULT 0,
    counted_on   date
);
ALTER TABLE ONLY stock_levels ADD CONSTRAINT stock_levels_pkey PRIMARY KEY (warehouse_id, product_sku);
ALTER TABLE ONLY stock_levels
    ADD CONSTRAINT stock_levels_warehouse_fkey FOREIGN KEY (warehouse_id) REFERENCES warehouses (id),
    ADD CONSTRAINT stock_levels_product_fkey FOREIGN KEY (product_sku) REFERENCES products (sku);

CREATE TABLE order_statuses (
    code  varchar(16) PRIMARY KEY,
    label text NOT NULL
);
COMMENT ON TABLE order_statuses IS 'open, paid, packed, shipped, returned';

CREATE TABLE orders (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id         bigint NOT NULL REFERENCES customers (id),
    shipping_address_id bigint NOT NULL REFERENCES addresses (id),
    billing_address_id  bigint REFERENCES addresses (id),
    status_code         varchar(16) NOT NULL REFERENCES order_statuses (code),
    ordered_at          timestamptz NOT NULL,
    note                text
);

CREATE TABLE order_items (
    order_id    bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    line_no     smallint NOT NULL,
    product_sku varchar(20) NOT NULL REFERENCES products (sku),
    quantity    integer NOT NULL CHECK (quantity > 0),
    unit_price  numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line_no)
);
COMMENT ON COLUMN order_items.unit_price IS 'Price at the time of the order';

CREATE TABLE payments (
    id        uuid PRIMARY KEY,
    order_id  bigint NOT NULL REFERENCES orders (id),
    amount    numeric(12, 2) NOT NULL,
    method    text NOT NULL,
    paid_at   timestamptz
);

CREATE TABLE shipments (
    id            bigint PRIMARY KEY,
    order_id      bigint NOT NULL REFERENCES orders (id),
    warehouse_id  integer NOT NULL REFERENCES warehouses (id),
    tracking_code text,
    shipped_at    timestamptz
);
CREATE UNIQUE INDEX shipments_tracking_code ON shipments USING btree (tracking_code);

CREATE TABLE reviews (
    customer_id bigint NOT NULL REFERENCES customers (id),
    product_sku varchar(20) NOT NULL REFERENCES products (sku),
    stars       smallint NOT NULL CHECK (stars BETWEEN 1 AND 5),
    body        text,
    written_at  timestamptz NOT NULL,
    PRIMARY KEY (customer_id, product_sku)
);

CREATE TABLE audit_log (
    id         bigserial PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT now(),
    actor      text NOT NULL,
    table_name text NOT NULL,
    change     jsonb NOT NULL
);
COMMENT ON TABLE audit_log IS 'Who changed which row, written by triggers';
