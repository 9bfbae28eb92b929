-- A town library with branches. MySQL dialect. Written for adit.

/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `loans`;

CREATE TABLE `branches` (
  `id` int unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(80) NOT NULL,
  `opened_on` date DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `uq_branch_name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='Houses where books stand';

CREATE TABLE `authors` (
  `id` int unsigned NOT NULL AUTO_INCREMENT,
  `family_name` varchar(120) NOT NULL,
  `given_names` varchar(120) DEFAULT NULL,
  `born` year DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `ix_family` (`family_name`(20))
) ENGINE=InnoDB;

CREATE TABLE `titles` (
  `isbn` char(13) NOT NULL,
  `title` varchar(255) NOT NULL COMMENT 'As printed, without the subtitle',
  `language` enum('en','de','fr','other') NOT NULL DEFAULT 'en',
  `published` year DEFAULT NULL,
  PRIMARY KEY (`isbn`)
) ENGINE=InnoDB;

CREATE TABLE `title_authors` (
  `isbn` char(13) NOT NULL,
  `author_id` int unsigned NOT NULL,
  `position` tinyint(3) unsigned NOT NULL DEFAULT '1',
  PRIMARY KEY (`isbn`,`author_id`),
  CONSTRAINT `fk_ta_title` FOREIGN KEY (`isbn`) REFERENCES `titles` (`isbn`) ON DELETE CASCADE,
  CONSTRAINT `fk_ta_author` FOREIGN KEY (`author_id`) REFERENCES `authors` (`id`)
) ENGINE=InnoDB COMMENT='Who wrote what';

CREATE TABLE `copies` (
  `barcode` varchar(16) NOT NULL,
  `isbn` char(13) NOT NULL,
  `branch_id` int unsigned NOT NULL,
  `acquired_on` date NOT NULL,
  `price_cents` int DEFAULT NULL,
  PRIMARY KEY (`barcode`),
  CONSTRAINT `fk_copy_title` FOREIGN KEY (`isbn`) REFERENCES `titles` (`isbn`),
  CONSTRAINT `fk_copy_branch` FOREIGN KEY (`branch_id`) REFERENCES `branches` (`id`)
) ENGINE=InnoDB;

CREATE TABLE `members` (
  `card_no` int unsigned NOT NULL,
  `name` varchar(160) NOT NULL,
  `email` varchar(190) DEFAULT NULL,
  `home_branch_id` int unsigned DEFAULT NULL,
  `blocked` tinyint(1) NOT NULL DEFAULT '0',
  `updated_at` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  PRIMARY KEY (`card_no`),
  UNIQUE KEY `uq_email` (`email`),
  CONSTRAINT `fk_member_branch` FOREIGN KEY (`home_branch_id`) REFERENCES `branches` (`id`)
) ENGINE=InnoDB;

CREATE TABLE `loans` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `barcode` varchar(16) NOT NULL,
  `card_no` int unsigned NOT NULL,
  `lent_at` datetime NOT NULL,
  `due_on` date NOT NULL,
  `returned_at` datetime DEFAULT NULL,
  `fine` decimal(6,2) NOT NULL DEFAULT '0.00',
  PRIMARY KEY (`id`),
  CONSTRAINT `fk_loan_copy` FOREIGN KEY (`barcode`) REFERENCES `copies` (`barcode`),
  CONSTRAINT `fk_loan_member` FOREIGN KEY (`card_no`) REFERENCES `members` (`card_no`)
) ENGINE=InnoDB;
